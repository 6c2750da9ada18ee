"""The registry of architectures, and the one function that builds a network from a name."""

import fnmatch
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from kbnn import methods
from kbnn.errors import UsageError, unknown
from kbnn.methods import Method

Builder = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Architecture:
    """A registered network: `builder(inputs, method, classes, **options)` returns the logits."""

    name: str
    builder: Builder
    input_shape: tuple[int, int, int]
    classes: int
    method: str
    summary: str
    refuses: dict[str, str] = field(default_factory=dict)
    preset: dict[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of the builder with their defaults."""
        parameters = inspect.signature(self.builder).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **self.preset}


_ARCHITECTURES: dict[str, Architecture] = {}


def register(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    summary: str,
    method: str = "bireal",
    refuses: dict[str, str] | None = None,
    **preset: Any,
) -> Callable[[Builder], Builder]:
    """Registers a builder under `name`.

    Args:
        name: what `build` and the command line call it.
        input_shape: default `(H, W, C)`.
        classes: default number of logits.
        summary: one line for `kbnn models`.
        method: default method.
        refuses: base methods that the architecture cannot take, with the reason.
        **preset: options of the builder that this name fixes as its defaults.
    """

    def decorator(builder: Builder) -> Builder:
        _ARCHITECTURES[name] = Architecture(
            name, builder, input_shape, classes, method, summary, dict(refuses or {}), preset
        )
        return builder

    return decorator


def names(pattern: str = "*") -> list[str]:
    """The registered names that match a shell pattern (`names("presb*")`), sorted."""
    return sorted(fnmatch.filter(_ARCHITECTURES, pattern))


def architectures() -> Iterator[Architecture]:
    """All registered architectures, by name."""
    return (_ARCHITECTURES[name] for name in names())


def get(name: str) -> Architecture:
    """The architecture of a name.

    Raises:
        UsageError: the name is not registered; near names are offered.
    """
    if name not in _ARCHITECTURES:
        raise unknown("model", name, _ARCHITECTURES)
    return _ARCHITECTURES[name]


def build(
    name: str,
    method: str | Method | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    classes: int | None = None,
    **options: Any,
) -> tf.keras.Model:
    """Builds a network; the model returns logits `(B, classes)`.

    Args:
        name: a registered architecture, see `names()`.
        method: what makes it binary, see `kbnn.methods.names()`; the architecture's own by default.
        input_shape: `(H, W, C)`.
        classes: number of logits.
        **options: the architecture's own options, see `kbnn models NAME`.

    Raises:
        UsageError: an unknown name, method or option, a method that the architecture cannot take, a shape that is
            not `(H, W, C)`, or fewer than one class.

    Example:
        >>> kbnn.models.build("resnet20", method="bireal", input_shape=(32, 32, 3), classes=10)
    """
    architecture = get(name)
    chosen = method if isinstance(method, Method) else methods.get(method or architecture.method)
    if chosen.base in architecture.refuses:
        raise UsageError(f"{name} cannot take method '{chosen.base}': {architecture.refuses[chosen.base]}")
    known = architecture.options()
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    shape = _checked_shape(name, input_shape or architecture.input_shape)
    count = architecture.classes if classes is None else classes
    if count < 1:
        raise UsageError(f"{name} needs at least one class: received classes={count}")

    inputs = tf.keras.Input(shape, name="image")
    logits = architecture.builder(inputs, chosen, count, **{**architecture.preset, **options})
    return tf.keras.Model(inputs, logits, name=name)


def _checked_shape(name: str, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    sizes = [size for size in shape if size is not None]
    if len(shape) != 3 or shape[2] is None or any(size < 1 for size in sizes):
        raise UsageError(f"{name} needs input_shape=(height, width, channels): received {tuple(shape)}")
    return tuple(shape)
