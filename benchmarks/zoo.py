"""Measures the costs of every network (`results/zoo.csv`) and writes `docs/networks.md` from the rows.

.venv/bin/python benchmarks/zoo.py              # measure all networks, then write the page
.venv/bin/python benchmarks/zoo.py "presb*"     # measure these again
.venv/bin/python benchmarks/zoo.py --check      # measure nothing; status 1 if the page differs from the rows
"""

import inspect
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import record

from kbnn import files, tables

if TYPE_CHECKING:
    import tensorflow as tf

    from kbnn.models.registry import Architecture, Builder

IMAGENET = ((224, 224, 3), 1000)
PAGE = record.ROOT / "docs" / "networks.md"
# A few images suffice, since the weights are random; `convert` compares the file with Keras on them.
IMAGES = 2
COUNTS = ("binary_weights", "real_parameters", "binary_macs", "real_macs", "storage_bits")


def sizes(architecture: "Architecture") -> Iterator[tuple[tuple[int, int, int], int]]:
    """The input shapes and class counts to measure: the network's own, and CIFAR's and ImageNet's if it has stems."""
    own = (architecture.input_shape, architecture.classes)
    if own == IMAGENET:
        yield (32, 32, 3), 10
    yield own
    if own != IMAGENET and "stem" in architecture.options():
        yield IMAGENET


def measure(architecture: "Architecture", shape: tuple[int, int, int], classes: int) -> dict[str, object]:
    """A row of results. Batch normalizations get random statistics, because equal constants would be stored once."""
    from kbnn import testing
    from kbnn.converters import convert

    model = build(architecture, shape, classes)
    testing.settle(model)
    with tempfile.TemporaryDirectory() as folder:
        artifact = convert(model, Path(folder) / "model.tflite", testing.normal_images(model, IMAGES))
    return {
        "network": architecture.name,
        "input": "x".join(map(str, shape)),
        "classes": classes,
        "method": architecture.method,
        **counts(model),
        "tflite_bytes": artifact.size_bytes,
    }


def build(architecture: "Architecture", shape: tuple[int, int, int], classes: int) -> "tf.keras.Model":
    import tensorflow as tf

    from kbnn import models

    tf.keras.utils.set_random_seed(0)
    return models.build(architecture.name, input_shape=shape, classes=classes)


def counts(model: "tf.keras.Model") -> dict[str, int]:
    """The columns of a row that do not need a conversion."""
    from kbnn import accounting

    cost = accounting.count(model)
    return {count: getattr(cost, count) for count in COUNTS}


def _cells(row: dict[str, str], architecture: "Architecture") -> tuple[str, ...]:
    data = "ImageNet" if row["input"] == "224x224x3" else "CIFAR"
    published = [f"{name} {top1}" for name, top1 in architecture.published.items() if name.startswith(data)]
    return (
        row["network"],
        row["input"],
        f"{_short(row['binary_weights'])} + {_short(row['real_parameters'])}",
        f"{_short(row['binary_macs'])} + {_short(row['real_macs'])}",
        f"{int(row['storage_bits']) / 1e6:.2f} Mbit",
        tables.size(int(row["tflite_bytes"])),
        ", ".join(published),
    )


def _short(count: str) -> str:
    """4 significant digits: 1234567 -> 1.235M."""
    value = float(count)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.4g}{letter}"
    return count


def page() -> str:
    """`docs/networks.md`, from the measured rows."""
    import jinja2

    from kbnn.models import architectures

    known = {architecture.name: architecture for architecture in architectures()}
    groups: dict[Builder, list[tuple[str, ...]]] = {}
    for row in _sorted(record.read("zoo")):
        network, size, *rest = _cells(row, known[row["network"]])
        cells = (f"`{network}`", size, row["classes"], f"`{row['method']}`", *rest)
        groups.setdefault(known[row["network"]].builder, []).append(cells)
    template = Path(__file__).with_name("networks.md.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)  # noqa: S701, it makes Markdown
    return (
        environment.from_string(template).render(
            networks=[{"title": _title(builder), "rows": rows} for builder, rows in groups.items()],
            options=[row for builder in groups for row in _options(builder)],
        )
        + "\n"
    )


def _sorted(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=lambda row: (row["network"], int(row["storage_bits"])))


def _title(builder: "Builder") -> str:
    """The first line of the docstring of the builder's module."""
    return (inspect.getmodule(builder).__doc__ or "").splitlines()[0].rstrip(".")


def _options(builder: "Builder") -> Iterator[tuple[str, str, object]]:
    from kbnn.models import architectures

    of_builder = [architecture for architecture in architectures() if architecture.builder is builder]
    names = ", ".join(f"`{architecture.name}`" for architecture in of_builder)
    for option, default in of_builder[0].options().items():
        fixed = {repr(architecture.options()[option]) for architecture in of_builder}
        yield names, option, repr(default) if len(fixed) == 1 else "by the name"


def check() -> None:
    if not PAGE.exists() or PAGE.read_text() != page():
        raise SystemExit(f"error: {PAGE.name} does not match results/zoo.csv; run benchmarks/zoo.py")


def main(pattern: str) -> None:
    from kbnn.models import architectures

    for architecture in architectures(pattern):
        rows = [measure(architecture, *size) for size in sizes(architecture)]
        record.update("zoo", rows, seed=0, network=architecture.name)
        print(*rows, sep="\n", flush=True)
    files.write(PAGE, page())


if __name__ == "__main__":
    argument = sys.argv[1] if len(sys.argv) > 1 else "*"
    check() if argument == "--check" else main(argument)
