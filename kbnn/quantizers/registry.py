"""The registry of quantizers: their names, what they binarize, and their levels.

Layers, methods, recipes and tests look quantizers up here, so that adding one means adding one file.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar, cast

import larq as lq
import tensorflow as tf

from kbnn._keras import deserialize, serializable
from kbnn.errors import UsageError, unknown
from kbnn.registry import Registry

# "activation": elementwise, for activations and kernels. "kernel": per filter, for kernels only.
Kind = Literal["activation", "kernel"]
KINDS = ("activation", "kernel")
SIGNS = (-1.0, 1.0)

Function = Callable[[tf.Tensor], tf.Tensor]
# Whatever layers accept as a quantizer: see `get`.
Identifier: TypeAlias = (
    str | type[lq.quantizers.Quantizer] | Mapping[str, object] | lq.quantizers.Quantizer | Function | None
)

Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Registered:
    """A quantizer's class, and the arguments that a name stands for."""

    name: str
    quantizer: type[lq.quantizers.Quantizer]
    kind: Kind
    levels: tuple[float, ...] | None
    arguments: Mapping[str, object] = field(default_factory=dict)

    def __call__(self) -> lq.quantizers.Quantizer:
        """Creates a quantizer."""
        return self.quantizer(**self.arguments)


def register(
    name: str,
    *,
    kind: Kind | None = None,
    levels: tuple[float, ...] | None = SIGNS,
    aliases: tuple[str, ...] = (),
    presets: Mapping[str, Mapping[str, object]] | None = None,
) -> Callable[[Class], Class]:
    """Registers a quantizer's class under a name, and with Keras, so that saved models load.

    The class keeps `kind` and `levels` as attributes; `levels_of` reads the levels. If they are not declared, layers
    train with the quantizer's own gradient, as Larq's layers do.

    Args:
        name: the name that layers, methods and recipes use.
        kind: "activation" if the quantizer works elementwise and so takes activations and kernels, "kernel" if its
            result for a weight depends on the whole filter. By default the kind that the class declares, as subclasses
            of `KernelQuantizer` do, or else "activation".
        levels: the values that it returns, in ascending order; for kernels, up to a positive factor per filter. None
            if they are learned.
        aliases: further names. The class's own name is always one of them.
        presets: further names, each for the class with some arguments.

    Raises:
        UsageError: an unknown kind, levels that are not in ascending order, or a name that is taken.

    Example:
        >>> @kbnn.quantizers.register("cubic")
        ... class CubicSign(kbnn.quantizers.Estimator):
        ...     @staticmethod
        ...     def surrogate(x, dy):
        ...         return dy * tf.maximum(1 - tf.abs(x) ** 3, 0)
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="cubic", kernel_quantizer="ste")
    """
    if kind not in (None, *KINDS):
        raise unknown(f"kind of quantizer '{name}'", str(kind), KINDS)
    if levels is not None and list(levels) != sorted(set(levels)):
        raise UsageError(f"levels of quantizer '{name}' must be in ascending order: received {levels}")

    def decorator(quantizer: Class) -> Class:
        if not issubclass(quantizer, lq.quantizers.Quantizer):
            raise UsageError(
                f"cannot register {quantizer.__name__} as quantizer '{name}': derive it from "
                f"kbnn.quantizers.Estimator, kbnn.quantizers.KernelQuantizer or larq.quantizers.Quantizer"
            )
        declared = None if levels is None else tuple(map(float, levels))
        chosen = kind or kind_of(quantizer) or "activation"
        setattr(quantizer, "kind", chosen)  # noqa: B010, mypy knows only that it is a class
        setattr(quantizer, "levels", declared)  # noqa: B010
        names: dict[str, Mapping[str, object]] = {name: {}, **(presets or {})}
        for known, arguments in names.items():
            extra = (*aliases, quantizer.__name__) if known == name else ()
            value = Registered(known, quantizer, chosen, declared, arguments)
            _QUANTIZERS.add(known, value, quantizer, [alias for alias in extra if alias != known])
        serializable(quantizer)
        return quantizer

    return decorator


def _adopt(name: str, found: object) -> None:
    if not isinstance(found, type):
        raise UsageError(f"an entry point of '{_QUANTIZERS.group}' must name a module or a class: received {found!r}")
    register(name, levels=getattr(found, "levels", None))(found)


_QUANTIZERS: Registry[Registered] = Registry("quantizer", "kbnn.quantizers", _adopt)


def names(kind: Kind | None = None) -> list[str]:
    """The registered names, sorted.

    Args:
        kind: "activation" for those that take activations. "kernel" or None for all, since all of them take kernels.
    """
    return [name for name in _QUANTIZERS.names() if _fits(_QUANTIZERS.get(name), kind)]


def find(name: str, kind: Kind | None = None, what: str = "quantizer") -> Registered:
    """The entry of a registered name; call it to create a quantizer.

    Args:
        name: a registered name or an alias, such as Larq's "ste_sign".
        kind: "activation" rejects quantizers that take kernels only.
        what: what the name stands for, in error messages.

    Raises:
        UsageError: an unknown name (close names are suggested), or a quantizer of another kind.
    """
    found = _QUANTIZERS.get(name, what, lambda registered: _fits(registered, kind))
    if not _fits(found, kind):
        raise UsageError(f"{what}: '{name}' binarizes kernels only, not activations; choose one of {names(kind)}")
    return found


def _fits(registered: Registered, kind: Kind | None) -> bool:
    return kind != "activation" or registered.kind == "activation"


def get(
    identifier: Identifier, what: str = "quantizer", kind: Kind | None = None
) -> lq.quantizers.Quantizer | Function | None:
    """Creates a quantizer from anything that layers accept.

    Args:
        identifier: a registered name, one of Larq's names, a class or a Keras configuration. A quantizer, another
            function or None is returned unchanged.
        what: what the identifier stands for, in error messages.
        kind: which quantizers an error message suggests.

    Raises:
        UsageError: an unknown name; close names are suggested.

    Example:
        >>> kbnn.quantizers.get("sign_swish_10")
    """
    if isinstance(identifier, str):
        if identifier in _QUANTIZERS:
            return _QUANTIZERS.get(identifier)()
        larq = tf.keras.utils.get_custom_objects().get(identifier)
        if isinstance(larq, type) and issubclass(larq, lq.quantizers.Quantizer):
            return larq()
        return find(identifier, kind, what)
    if isinstance(identifier, type):
        return identifier()
    return deserialize(identifier) if isinstance(identifier, Mapping) else identifier


def levels_of(quantizer: object) -> tuple[float, ...] | None:
    """The levels that a quantizer declares, in ascending order; None if it declares none.

    If a class overrides `call` without declaring levels, those of its base class no longer apply.
    """
    if "levels" in getattr(quantizer, "__dict__", {}):
        return _as_levels(vars(quantizer)["levels"])
    for ancestor in type(quantizer).__mro__:
        if "levels" in vars(ancestor):
            return _as_levels(vars(ancestor)["levels"])
        if "call" in vars(ancestor) or "__call__" in vars(ancestor):
            return None
    return None


def _as_levels(levels: Iterable[float] | None) -> tuple[float, ...] | None:
    return None if levels is None else tuple(map(float, levels))


def kind_of(quantizer: object) -> Kind | None:
    """The kind that a quantizer declares; None if it declares none."""
    kind = getattr(quantizer, "kind", None)
    return cast(Kind, kind) if kind in KINDS else None
