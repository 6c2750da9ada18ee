"""The registry of architectures, and the one function that builds a network from a name."""

import fnmatch
import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pydantic
import tensorflow as tf

from kbnn import methods
from kbnn.errors import UsageError, unknown
from kbnn.methods import Method

Builder = Callable[..., tf.Tensor]
Shape = tuple[pydantic.PositiveInt | None, pydantic.PositiveInt | None, pydantic.PositiveInt]


@dataclass(frozen=True)
class Architecture:
    """A registered network: `builder(inputs, method, classes, **options)` returns the logits."""

    name: str
    builder: Builder
    input_shape: tuple[int, int, int]
    classes: int
    method: str
    summary: str
    published: dict[str, str] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)
    preset: dict[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of the builder with their defaults."""
        parameters = inspect.signature(self.builder).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **self.preset}

    def methods(self) -> list[str]:
        """The base methods that it can take."""
        return [name for name in methods.names() if name not in self.refuses]


_ARCHITECTURES: dict[str, Architecture] = {}


def register(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    summary: str,
    method: str = "bireal",
    published: dict[str, str] | None = None,
    refuses: dict[str, str] | None = None,
    **preset: Any,
) -> Callable[[Builder], Builder]:
    """Registers a builder under `name`. The type hints of its keyword arguments say which values they take.

    Args:
        name: what `build` and the command line call it.
        input_shape: default `(H, W, C)`.
        classes: default number of logits.
        summary: one line for `kbnn models`.
        method: default method.
        published: top-1 accuracies of the papers, by data set.
        refuses: base methods that the architecture cannot take, with the reason.
        **preset: options of the builder that this name fixes as its defaults.
    """

    def decorator(builder: Builder) -> Builder:
        _ARCHITECTURES[name] = Architecture(
            name, builder, input_shape, classes, method, summary, dict(published or {}), dict(refuses or {}), preset
        )
        return builder

    return decorator


def names(pattern: str = "*") -> list[str]:
    """The registered names that match a shell pattern (`names("presb*")`), sorted."""
    return sorted(fnmatch.filter(_ARCHITECTURES, pattern))


def architectures(pattern: str = "*") -> Iterator[Architecture]:
    """The registered architectures whose names match a shell pattern, by name."""
    return (_ARCHITECTURES[name] for name in names(pattern))


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
        UsageError: an unknown name, method or option, a value that an option does not take, a method that the
            architecture cannot take, an image that is too small, or fewer than one class.

    Example:
        >>> kbnn.models.build("resnet20", method="bireal", input_shape=(32, 32, 3), classes=10)
    """
    architecture = get(name)
    chosen = method.fresh() if isinstance(method, Method) else methods.get(method or architecture.method)
    if chosen.base in architecture.refuses:
        raise UsageError(f"{name} cannot take method '{chosen.base}': {architecture.refuses[chosen.base]}")
    asked_shape = architecture.input_shape if input_shape is None else input_shape
    shape = _checked(f"{name}: input_shape (height, width, channels)", Shape, asked_shape)
    count = _checked(f"{name}: classes", pydantic.PositiveInt, architecture.classes if classes is None else classes)
    settings = {**architecture.preset, **_checked_options(architecture, options)}

    inputs = tf.keras.Input(shape, name="image")
    try:
        logits = architecture.builder(inputs, chosen, count, **settings)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    return tf.keras.Model(inputs, logits, name=name)


def _checked_options(architecture: Architecture, options: dict[str, Any]) -> dict[str, Any]:
    known = architecture.options()
    hints = typing.get_type_hints(architecture.builder, include_extras=True)
    for option in options:
        if option not in known:
            raise unknown(f"option of {architecture.name}", option, known)
    return {
        option: _checked(f"{architecture.name}: {option}", hints[option], value) for option, value in options.items()
    }


def _checked(what: str, kind: Any, value: Any) -> Any:
    """The value as its type wants it (a list for a tuple, an int for a float), or a UsageError."""
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        reasons = {detail["msg"][:1].lower() + detail["msg"][1:] for detail in error.errors()}
        raise UsageError(f"{what}: {'; '.join(sorted(reasons))}, received {value!r}") from None
