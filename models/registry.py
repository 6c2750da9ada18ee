"""The registry of architectures, and the function that builds a network by name."""

import fnmatch
import inspect
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pydantic
import tensorflow as tf

from kbnn import methods, pretrained
from kbnn._keras import forget_scratch_gradients
from kbnn.errors import UsageError, unknown
from kbnn.methods import Method
from kbnn.registry import Registry
from kbnn.weights import load_source, start

Builder = Callable[..., tf.Tensor]
Value = TypeVar("Value")
_SHAPE: pydantic.TypeAdapter[tuple[int | None, int | None, int]] = pydantic.TypeAdapter(
    tuple[pydantic.PositiveInt | None, pydantic.PositiveInt | None, pydantic.PositiveInt]
)
_COUNT: pydantic.TypeAdapter[int] = pydantic.TypeAdapter(pydantic.PositiveInt)


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
    preset: dict[str, object] = field(default_factory=dict)

    def options(self) -> dict[str, object]:
        """The keyword arguments of the builder with their defaults."""
        parameters = inspect.signature(self.builder).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **self.preset}

    def methods(self) -> list[str]:
        """The base methods that the architecture accepts."""
        return [name for name in methods.names() if name not in self.refuses]

    def check(self, method: str | Method | None, options: Mapping[str, object]) -> None:
        """Raises UsageError for a method that does not fit, an unknown option, or an invalid value of one."""
        _chosen_method(self, method)
        _checked_options(self, options)


def _adopt(name: str, found: object) -> None:
    raise UsageError(f"{found!r} is not registered: decorate it with @kbnn.models.register('{name}', ...)")


_ARCHITECTURES: Registry[Architecture] = Registry("model", "kbnn.architectures", _adopt)


def register(
    name: str,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    summary: str | None = None,
    method: str = "bireal",
    published: dict[str, str] | None = None,
    refuses: dict[str, str] | None = None,
    **preset: object,
) -> Callable[[Builder], Builder]:
    """Registers a function that builds a network, `builder(inputs, method, classes, **options)`, under a name.

    The function returns the logits. Its keyword-only arguments are the network's options; their type hints define which
    values are valid.

    Args:
        name: name for `build` and the command line.
        input_shape: default `(H, W, C)`.
        classes: default number of classes.
        summary: one line for `kbnn models`; by default the first line of the builder's docstring.
        method: default method.
        published: top-1 accuracies in papers, by data set.
        refuses: base methods that do not fit the architecture, with the reasons.
        **preset: options whose defaults differ from the builder's.

    Raises:
        UsageError: the name is taken.

    Example:
        >>> @kbnn.models.register("mine", input_shape=(32, 32, 3), classes=10)
        ... def mine(inputs, method, classes, *, width: float = 1.0):
        ...     x = tf.keras.layers.Conv2D(round(32 * width), 3, name="stem")(inputs)
        ...     x = method.convolution(x, 64, 3, name="conv")
        ...     x = tf.keras.layers.GlobalAveragePooling2D()(x)
        ...     return tf.keras.layers.Dense(classes, name="logits")(x)
        >>> kbnn.models.build("mine", method="bireal")
    """

    def decorator(builder: Builder) -> Builder:
        line = summary or (builder.__doc__ or "").strip().partition("\n")[0]
        architecture = Architecture(
            name, builder, input_shape, classes, method, line, dict(published or {}), dict(refuses or {}), preset
        )
        _ARCHITECTURES.add(name, architecture, builder)
        return builder

    return decorator


def names(pattern: str = "*") -> list[str]:
    """The sorted names that match a shell pattern, for example `names("presb*")`."""
    return fnmatch.filter(_ARCHITECTURES.names(), pattern)


def architectures(pattern: str = "*") -> Iterator[Architecture]:
    """The architectures whose names match a shell pattern, sorted by name."""
    return (_ARCHITECTURES.get(name) for name in names(pattern))


def get(name: str) -> Architecture:
    """The architecture with a name.

    Raises:
        UsageError: the name is not registered; close names are suggested.
    """
    return _ARCHITECTURES.get(name)


def build(
    name: str,
    method: str | Method | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    classes: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    include_top: bool = True,
    **options: object,
) -> tf.keras.Model:
    """Builds a network; the model returns logits `(B, classes)`.

    Args:
        name: a registered architecture, see `names()`.
        method: the binarization method, a name (see `kbnn.methods.names()`) or a `Method`; by default the
            architecture's own.
        input_shape: `(H, W, C)`.
        classes: number of classes.
        weights: trained weights to start from: the data set or the name of included weights (see
            `kbnn.pretrained.names()`), the folder of a run, a `.keras` or `.h5` file or a weight file. Included weights
            and runs also set the method, options, input shape and classes, unless others are given; models in a file
            set the input shape and classes. If the number of classes differs, the classifier is initialized at random.
        include_top: whether to include the classifier; without it, the model returns its input: features `(B, C)`.
        **options: options of the architecture, see `kbnn models NAME`.

    Raises:
        UsageError: an unknown name, method or option, an invalid value of an option, a method that does not fit the
            architecture, an image that is too small, fewer than one class, or weights of another network.
        KbnnError: the weights are damaged.

    Example:
        >>> kbnn.models.build("resnet20", method="bireal", input_shape=(32, 32, 3), classes=10)
        >>> kbnn.models.build("resnet20", weights="cifar10", classes=5)
    """
    architecture = get(name)
    source = None if weights is None else _source(name, weights, method)
    if source is not None:
        method = method or source.method
        input_shape, classes = input_shape or source.input_shape, source.classes if classes is None else classes
        options = {**source.options, **options}
    chosen = _chosen_method(architecture, method)
    asked_shape = architecture.input_shape if input_shape is None else input_shape
    shape = _checked(f"{name}: input_shape (height, width, channels)", _SHAPE, asked_shape)
    count = _checked(f"{name}: classes", _COUNT, architecture.classes if classes is None else classes)
    settings = {**architecture.preset, **_checked_options(architecture, options)}

    inputs = tf.keras.Input(shape, name="image")
    try:
        logits = architecture.builder(inputs, chosen, count, **settings)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    model = tf.keras.Model(inputs, logits, name=name)
    if source is not None:
        start(model, source.weights)
    if not include_top:
        model = tf.keras.Model(inputs, model.layers[-1].input, name=name)
    forget_scratch_gradients()
    return model


@dataclass(frozen=True)
class _Source:
    """Weights to start from, as `kbnn.weights.start` takes them, and what is known about their network."""

    weights: str | os.PathLike[str] | tf.keras.Model
    method: str | Method | None = None
    input_shape: tuple[int | None, int | None, int] | None = None
    classes: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)


def _source(name: str, weights: str | os.PathLike[str], method: str | Method | None) -> _Source:
    shipped = pretrained.find(name, os.fspath(weights), _method_name(method))
    if shipped is not None:
        return _Source(shipped.name, shipped.method, shipped.input_shape, len(shipped.classes), shipped.options)
    if not Path(weights).exists():
        raise pretrained.no_such(name, os.fspath(weights))
    found = load_source(weights)
    if not isinstance(found, tf.keras.Model):
        return _Source(weights)
    from kbnn.training import Run
    from kbnn.training.networks import method as method_of

    shape = found.input_shape[1:] if isinstance(found.input_shape, tuple) and len(found.input_shape) == 4 else None
    known = _Source(found, input_shape=shape, classes=found.output_shape[-1])
    if not Run.exists(weights):
        return known
    recipe = Run.open(weights).recipe
    if recipe.model.name != name:
        raise UsageError(f"run '{weights}' trained {recipe.model.name}: received model '{name}', give that name")
    stage = recipe.stage[-1]
    options = {**recipe.model.options, **stage.options}
    return replace(known, method=method_of(recipe.model, stage), options=options)


def _chosen_method(architecture: Architecture, method: str | Method | None) -> Method:
    chosen = method.fresh() if isinstance(method, Method) else methods.get(method or architecture.method)
    if chosen.base in architecture.refuses:
        raise UsageError(f"{architecture.name} cannot take method '{chosen.base}': {architecture.refuses[chosen.base]}")
    return chosen


def _method_name(method: str | Method | None) -> str | None:
    return method.name if isinstance(method, Method) else method


def _checked_options(architecture: Architecture, options: Mapping[str, object]) -> dict[str, object]:
    known = architecture.options()
    hints = typing.get_type_hints(architecture.builder, include_extras=True)
    for option in options:
        if option not in known:
            raise unknown(f"option of {architecture.name}", option, known)
    return {
        option: _checked(f"{architecture.name}: {option}", pydantic.TypeAdapter(hints[option]), value)
        for option, value in options.items()
    }


def _checked(what: str, kind: pydantic.TypeAdapter[Value], value: object) -> Value:
    """Converts the value to its declared type (a list to a tuple, an int to a float), or raises UsageError."""
    try:
        return kind.validate_python(value)
    except pydantic.ValidationError as error:
        reasons = sorted({_reason(detail["msg"]) for detail in error.errors()})
        received = "" if any("received" in reason for reason in reasons) else f", received {value!r}"
        raise UsageError(f"{what}: {'; '.join(reasons)}{received}") from None


def _reason(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
