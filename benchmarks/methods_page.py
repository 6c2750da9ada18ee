"""Writes `docs/methods.md` from the registries: all methods, and all quantizers with their formulas and gradients.

python benchmarks/methods_page.py              # writes the page and docs/gradients/
python benchmarks/methods_page.py --check      # writes nothing; status 1 if the page differs from the registries
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
import record
import tensorflow as tf

from kbnn import files, methods, quantizers
from kbnn.analysis.pictures import COLOURS, Picture, picture
from kbnn.quantizers.registry import Registered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = record.ROOT / "docs"
PAGE = DOCS / "methods.md"
PICTURES = DOCS / "gradients"
_SECTIONS = ("Args:", "Raises:", "Example:")
# Larq documents its quantizers in LaTeX; these are the same formulas in our notation.
_LARQS = {
    "approx_sign": """The sign with a triangular gradient.

    Forward: q(x) = +1 where x >= 0, else -1.
    Gradient: dq/dx = 2 - 2·abs(x) on abs(x) <= 1, else 0.

    Source: Liu et al., Bi-Real Net, 2018, equation 3.""",
    "ste": """The sign with the straight-through estimator.

    Forward: q(x) = +1 where x >= 0, else -1.
    Gradient: dq/dx = 1 on abs(x) <= 1, else 0.

    Source: Courbariaux et al., Binarized Neural Networks, 2016.""",
}


def page() -> str:
    """`docs/methods.md`."""
    template = Path(__file__).with_name("methods.md.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701, it makes Markdown
    return environment.from_string(template).render(
        methods=[_method(name) for name in methods.names()],
        modifiers=[(f"`+{name}`", methods.describe(f"+{name}")) for name in methods.modifiers()],
        activations=[_quantizer(name) for name in _classes("activation")],
        kernels=[_quantizer(name) for name in _classes("kernel")],
    )


def _method(name: str) -> tuple[str, ...]:
    method = methods.get(name)
    made = [method.layer_arguments()[key] for key in ("input_quantizer", "kernel_quantizer")]
    names = [f"`{type(quantizer).__name__}`" if quantizer else "none" for quantizer in made]
    return f"`{name}`", methods.describe(name), *names, method.scale or "none"


def _classes(kind: str) -> list[str]:
    """The names of quantizers of a kind, without presets, which are listed with their class."""
    found = {name: quantizers.find(name) for name in quantizers.names()}
    return [name for name, registered in found.items() if registered.kind == kind and not registered.arguments]


def _presets(registered: Registered) -> list[str]:
    found = (quantizers.find(name) for name in quantizers.names())
    return [f"`{other.name}`" for other in found if other.quantizer is registered.quantizer and other.arguments]


def _quantizer(name: str) -> dict[str, object]:
    """A quantizer's docstring, without the sections that are in the API reference."""
    registered = quantizers.find(name)
    text = inspect.cleandoc(_LARQS.get(name) or registered.quantizer.__doc__ or "")
    kept = [part for part in text.split("\n\n") if not part.lstrip().startswith(_SECTIONS)]
    kept = [part for part in kept if not part.lstrip().startswith((">>>", "```", "!!!", "# "))]
    title, *body = kept
    return {
        "name": name,
        "title": title,
        "body": [re.sub(r" *\n(?!Gradient:) *", " ", part).replace("\n", "  \n") for part in body],
        "presets": ", ".join(_presets(registered)),
        "picture": f"gradients/{name}.png" if _is_plotted(registered) else None,
    }


def _is_plotted(registered: Registered) -> bool:
    return registered.kind == "activation" and registered.levels == quantizers.registry.SIGNS


def pictures() -> Iterator[tuple[str, Picture]]:
    """A picture of the gradient of each elementwise quantizer, as computed by the library."""
    for name in _classes("activation"):
        if _is_plotted(quantizers.find(name)):
            yield name, _gradient(name)


def _gradient(name: str) -> Picture:
    x = np.linspace(-2, 2, 801, dtype=np.float32)
    quantizer = quantizers.find(name)()
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        signs = quantizer(inputs)
    derivative = tape.gradient(signs, inputs).numpy()

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot(x, signs.numpy(), color=COLOURS[0], label="forward")
        axes.plot(x, derivative, color=COLOURS[4], label="gradient")
        axes.set_xlabel("x")
        axes.legend()

    return picture(draw, name, (4.0, 2.4))


def main() -> None:
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != page():
            raise SystemExit(f"error: {PAGE.name} differs from the registries; run benchmarks/methods_page.py")
        return
    files.write(PAGE, page())
    for name, drawn in pictures():
        files.write(PICTURES / f"{name}.png", drawn.png)


if __name__ == "__main__":
    main()
