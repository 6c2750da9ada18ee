"""The papers' methods by name, alone and combined: quantizers, scale, penalty and activation of binary layers.

>>> method = kbnn.methods.get("irnet+ml+bma")
>>> y = method.convolution(x, 64, 3, name="block1_conv1")
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import larq as lq
import tensorflow as tf

from kbnn import quantizers
from kbnn.activations import HardTanh
from kbnn.errors import UsageError, unknown
from kbnn.layers import (
    ActivationScale,
    BatchMedian,
    BinaryConv2D,
    BinaryDense,
    ChannelShift,
    GroupNormalization,
    Maxout,
    PReLU,
    RPReLU,
)
from kbnn.quantizers.base import ScaleScope
from kbnn.registry import Registry
from kbnn.regularizers import AdjustablePenalty, Euclidean, Manhattan, MedianLoss

# Applies a layer to a tensor, given the tensor and a name.
Step = Callable[[tf.Tensor, str], tf.Tensor]


def _median(x: tf.Tensor, name: str) -> tf.Tensor:
    return BatchMedian(name=f"{name}_median")(x)


def _shift(x: tf.Tensor, name: str) -> tf.Tensor:
    return ChannelShift(name=f"{name}_shift")(x)


def _standardized_sample(x: tf.Tensor, name: str) -> tf.Tensor:
    # A dense layer's input is one pixel, which has no spatial statistics.
    return x if len(x.shape) != 4 else GroupNormalization(name=f"{name}_standardized")(x)


def _clip(x: tf.Tensor, name: str) -> tf.Tensor:
    return HardTanh(name=f"{name}_clip")(x)


def _relu(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.ReLU(name=f"{name}_relu")(x)


def _hard_tanh(x: tf.Tensor, name: str) -> tf.Tensor:
    return HardTanh(name=name)(x)


def _prelu(x: tf.Tensor, name: str) -> tf.Tensor:
    return PReLU(name=name)(x)


def _maxout(x: tf.Tensor, name: str) -> tf.Tensor:
    return Maxout(name=name)(x)


def _rprelu(x: tf.Tensor, name: str) -> tf.Tensor:
    return RPReLU(name=name)(x)


# Activations after a shortcut's addition, by name.
ACTIVATIONS: dict[str, Step | None] = {
    "none": None,
    "hard_tanh": _hard_tanh,
    "prelu": _prelu,
    "rprelu": _rprelu,
    "maxout": _maxout,
}


# A quantizer's registered name, a class or function that creates one, or a quantizer that each layer gets a copy of.
QuantizerSource: TypeAlias = str | Callable[[], lq.quantizers.Quantizer] | lq.quantizers.Quantizer
# The same for constraints.
ConstraintSource: TypeAlias = str | Callable[[], tf.keras.constraints.Constraint] | tf.keras.constraints.Constraint


@dataclass(frozen=True)
class Method:
    """A binarization method: how the layers of a network are made binary.

    Each layer gets its own quantizers and constraints: names and quantizers are converted to functions that create
    them. Penalties are shared by all layers of a network, so that a single variable sets their strength and the median
    loss knows the number of layers. For another network, call `get` again or use `fresh()`.

    Args:
        name: the name in the registry and in the records of runs; set by `get`.
        base: the name without modifiers; set by `get`.
        input_quantizer: binarizes activations; None leaves them real-valued.
        kernel_quantizer: binarizes kernels; None leaves them real-valued.
        kernel_constraint: the constraint of latent kernels, such as "weight_clip".
        kernel_regularizer: the penalty of latent kernels.
        scale: scale of the output, see `kbnn.layers.BinaryConv2D`.
        scale_scope: "filter" or "layer", see `kbnn.layers.BinaryConv2D`.
        scale_initializer: see `kbnn.layers.BinaryConv2D`.
        scale_regularizer: see `kbnn.layers.BinaryConv2D`.
        before: layers before each sign.
        after: the layer after each shortcut's addition.
        scales_activations: whether XNOR-Net's K multiplies the output.

    Example:
        >>> kbnn.models.build("resnet20", Method(input_quantizer="ede", kernel_quantizer="xnor"))
    """

    name: str = ""
    base: str = ""
    input_quantizer: QuantizerSource | None = None
    kernel_quantizer: QuantizerSource | None = None
    kernel_constraint: ConstraintSource | None = None
    kernel_regularizer: tf.keras.regularizers.Regularizer | None = None
    scale: str | None = None
    scale_scope: ScaleScope = "filter"
    scale_initializer: str = "mean"
    scale_regularizer: tf.keras.regularizers.Regularizer | None = None
    before: tuple[Step, ...] = ()
    after: Step | None = None
    scales_activations: bool = False

    def __post_init__(self) -> None:
        for field in ("input_quantizer", "kernel_quantizer"):
            object.__setattr__(self, field, _maker(getattr(self, field), field))
        object.__setattr__(self, "kernel_constraint", _constraint_maker(self.kernel_constraint))

    @property
    def is_binary(self) -> bool:
        """Whether activations or kernels are binarized, as in every method but the real-valued twin."""
        return self.input_quantizer is not None or self.kernel_quantizer is not None

    @property
    def penalties(self) -> list[AdjustablePenalty]:
        """The penalties whose strength λ can be changed; Keras's regularizers are not among them."""
        both = (self.kernel_regularizer, self.scale_regularizer)
        return [penalty for penalty in both if isinstance(penalty, AdjustablePenalty)]

    def fresh(self) -> "Method":
        """The same method for another network, with penalties of its own."""
        return dataclasses.replace(
            self,
            kernel_regularizer=_fresh(self.kernel_regularizer),
            scale_regularizer=_fresh(self.scale_regularizer),
        )

    def with_real_kernels(self) -> "Method":
        """The same method without what concerns binary kernels: their quantizer, constraint, penalties and scale."""
        return dataclasses.replace(
            self,
            kernel_quantizer=None,
            kernel_constraint=None,
            kernel_regularizer=None,
            scale=None,
            scale_regularizer=None,
        )

    def with_activation(self, name: str) -> "Method":
        """The same method with another activation after the shortcut's addition.

        Args:
            name: "none", "hard_tanh", "prelu", "rprelu" or "maxout" (two slopes, AdaBin).

        Raises:
            UsageError: an unknown name; close names are suggested.
        """
        if name not in ACTIVATIONS:
            raise unknown("activation", name, ACTIVATIONS)
        return dataclasses.replace(self, after=ACTIVATIONS[name])

    def convolution(
        self,
        x: tf.Tensor,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        groups: int = 1,
        *,
        name: str,
        **kwargs: object,
    ) -> tf.Tensor:
        """A binary convolution, with the method's layers before its sign: `(B, H, W, C)` to `(B, H', W', filters)`.

        Args:
            x: real-valued activations.
            filters: number of output channels.
            kernel_size: height and width, or one number for both.
            strides: vertical and horizontal, or one number for both.
            padding: "same" or "valid".
            groups: as for `BinaryConv2D`.
            name: name of the convolution; the names of the layers before it begin with it.
            **kwargs: further arguments of `BinaryConv2D`, which override the method's.

        Raises:
            UsageError: a dilated convolution in a method that scales activations, or as for `BinaryConv2D`.
        """
        layer = BinaryConv2D(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            groups=groups,
            name=name,
            **{**self.layer_arguments(), **kwargs},
        )
        if self.scales_activations and layer.dilation_rate != (1, 1):
            raise UsageError(
                f"{name}: received dilation_rate={layer.dilation_rate}, but the magnitude of the activations is "
                f"averaged over windows without dilation; choose a method that does not scale activations"
            )
        x = self._prepared(x, name)
        return self._scaled(layer(x), x, name, kernel_size, strides, padding)

    def dense(self, x: tf.Tensor, units: int, *, name: str, **kwargs: object) -> tf.Tensor:
        """A binary dense layer, with the method's layers before its sign: `(B, C)` to `(B, units)`."""
        layer = BinaryDense(units, name=name, **{**self.layer_arguments(), **kwargs})
        x = self._prepared(x, name)
        return self._scaled(layer(x), x, name)

    def activation(self, x: tf.Tensor, *, name: str) -> tf.Tensor:
        """Applies the method's activation after a shortcut's addition; most methods have none."""
        return x if self.after is None else self.after(x, name)

    def _prepared(self, x: tf.Tensor, name: str) -> tf.Tensor:
        for step in self.before:
            x = step(x, name)
        return x

    def _scaled(
        self,
        y: tf.Tensor,
        x: tf.Tensor,
        name: str,
        kernel_size: int | tuple[int, int] = 1,
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
    ) -> tf.Tensor:
        """The output `y` for input `x`, multiplied by the magnitude of `x` if the method scales activations."""
        if not self.scales_activations:
            return y
        return ActivationScale(kernel_size, strides, padding, name=f"{name}_magnitude")([y, x])

    # Any, because Keras's layers, which take further keyword arguments, are untyped.
    def layer_arguments(self) -> dict[str, Any]:
        """The keyword arguments of a `BinaryConv2D` or `BinaryDense`, for hand-written models.

        They do not include the method's layers before the sign and after the addition.
        """
        return {
            "input_quantizer": _made(self.input_quantizer),
            "kernel_quantizer": _made(self.kernel_quantizer),
            "kernel_constraint": self.kernel_constraint() if callable(self.kernel_constraint) else None,
            "kernel_regularizer": self.kernel_regularizer,
            "scale": self.scale,
            "scale_scope": self.scale_scope,
            "scale_initializer": self.scale_initializer,
            "scale_regularizer": self.scale_regularizer,
        }


def _maker(source: QuantizerSource | None, what: str) -> Callable[[], lq.quantizers.Quantizer] | None:
    """A function that creates quantizers.

    Raises:
        UsageError: an unknown name; close names are suggested.
    """
    if isinstance(source, str):
        quantizers.get(source, what)
        return functools.partial(quantizers.get, source)
    return functools.partial(_copy, source) if isinstance(source, lq.quantizers.Quantizer) else source


def _constraint_maker(source: ConstraintSource | None) -> Callable[[], tf.keras.constraints.Constraint] | None:
    """A function that creates constraints."""
    if isinstance(source, str):
        return functools.partial(tf.keras.constraints.get, source)
    return functools.partial(_copy, source) if isinstance(source, tf.keras.constraints.Constraint) else source


# Any, because these are classes of untyped libraries.
def _copy(made: Any) -> Any:
    """A quantizer or constraint with the same configuration."""
    config = {key: value for key, value in made.get_config().items() if key != "name"}
    return type(made).from_config(config)


def _made(source: QuantizerSource | None) -> lq.quantizers.Quantizer | None:
    return source() if callable(source) else None


def _fresh(regularizer: tf.keras.regularizers.Regularizer | None) -> tf.keras.regularizers.Regularizer | None:
    """A penalty for another network; Keras's regularizers have no state."""
    return regularizer.fresh() if isinstance(regularizer, AdjustablePenalty) else regularizer


def register(name: str) -> Callable[[Callable[[], Method]], Callable[[], Method]]:
    """Registers a function that returns a `Method` under a name. Its docstring's first line describes the method.

    Raises:
        UsageError: the name is taken or contains a "+", which separates modifiers.

    Example:
        >>> @kbnn.methods.register("mine")
        ... def mine():
        ...     '''EDE activations, XNOR-Net's kernels.'''
        ...     return kbnn.methods.Method(input_quantizer="ede", kernel_quantizer="xnor")
        >>> kbnn.models.build("resnet20", method="mine+bma")
    """
    if "+" in name:
        raise UsageError(f"cannot register method '{name}': '+' separates modifiers; choose another name")

    def decorator(function: Callable[[], Method]) -> Callable[[], Method]:
        _METHODS.add(name, function, function)
        return function

    return decorator


def _adopt(name: str, found: object) -> None:
    if not callable(found):
        raise UsageError(f"an entry point of '{_METHODS.group}' must name a module or a function: received {found!r}")
    register(name)(cast(Callable[[], Method], found))


_METHODS: Registry[Callable[[], Method]] = Registry("method", "kbnn.methods", _adopt)


@register("float")
def _real_twin() -> Method:
    """The real-valued twin, with a clip instead of the sign (`float+relu`: a ReLU); its weights load by name."""
    return Method(before=(_clip,))


@register("bnn")
def _bnn() -> Method:
    """BNN: straight-through signs, latent weights clipped to [-1, 1]."""
    return Method(
        input_quantizer="ste", kernel_quantizer="ste", kernel_constraint=lambda: lq.constraints.WeightClip(1.0)
    )


@register("xnor")
def _xnor() -> Method:
    """XNOR-Net: kernels scaled by their mean magnitude, with the gradient of its paper."""
    return Method(input_quantizer="ste", kernel_quantizer="xnor")


@register("dorefa")
def _dorefa() -> Method:
    """DoReFa-Net at 1 bit: one scale per layer, and kernel gradients passed through unchanged."""
    return Method(input_quantizer="ste", kernel_quantizer="dorefa")


@register("bireal")
def _bireal() -> Method:
    """Bi-Real Net: ApproxSign activations, magnitude-aware kernels."""
    return Method(input_quantizer="approx_sign", kernel_quantizer="magnitude_aware")


@register("irnet")
def _irnet() -> Method:
    """IR-Net: Libra kernels, the error decay estimator for both, hard tanh after the addition."""
    return Method(
        input_quantizer="ede",
        kernel_quantizer=lambda: quantizers.LibraSign(gradient="ede"),
        after=_hard_tanh,
    )


@register("siman")
def _siman() -> Method:
    """SiMaN: half-half kernels by magnitude, learned scale. `siman+code` follows the authors' code."""
    return Method(input_quantizer="approx_sign", kernel_quantizer="half_half", scale="learned")


@register("bnnplus_r1")
def _bnnplus_r1() -> Method:
    """BNN+ with the Manhattan penalty: trainable SignSwish for both, learned scale from the median."""
    return Method(
        input_quantizer="sign_swish_trainable",
        kernel_quantizer="sign_swish_trainable",
        scale="learned",
        scale_initializer="median",
        scale_regularizer=Manhattan(),
    )


@register("bnnplus_r2")
def _bnnplus_r2() -> Method:
    """BNN+ with the Euclidean penalty: trainable SignSwish for both, learned scale from the mean."""
    return Method(
        input_quantizer="sign_swish_trainable",
        kernel_quantizer="sign_swish_trainable",
        scale="learned",
        scale_regularizer=Euclidean(),
    )


@register("react")
def _react() -> Method:
    """ReActNet: learned thresholds before the sign, RPReLU after the addition."""
    return Method(input_quantizer="approx_sign", kernel_quantizer="magnitude_aware", before=(_shift,), after=_rprelu)


@register("adabin")
def _adabin() -> Method:
    """AdaBin: two learned values for activations, two per filter for kernels, two-slope PReLU after the addition."""
    return Method(
        input_quantizer="adaptive",
        kernel_quantizer=lambda: quantizers.EqualizedSign(gradient="ede"),
        after=_maxout,
    )


@register("presb")
def _presb() -> Method:
    """PresB-Net's leaky signs (from its code) and magnitude-aware kernels; the rest is part of the networks presb*."""
    return Method(input_quantizer="leaky_ste", kernel_quantizer="magnitude_aware")


@dataclass(frozen=True)
class _Modifier:
    """A function that changes a method, and the only base that accepts it, if it is limited to one."""

    change: Callable[[Method], Method]
    only: str | None


# In the order in which they are applied.
_MODIFIERS: dict[str, _Modifier] = {}


def _modifier(name: str, only: str | None = None) -> Callable[[Callable[[Method], Method]], Callable[[Method], Method]]:
    def decorator(change: Callable[[Method], Method]) -> Callable[[Method], Method]:
        _MODIFIERS[name] = _Modifier(change, only)
        return change

    return decorator


@_modifier("std")
def _with_standardized_kernels(method: Method) -> Method:
    """`+std`: standardized kernels. The scale of the base's kernel quantizer becomes the layer's output scale.

    Raises:
        UsageError: the base's kernels have another scale, as those of IR-Net and AdaBin, which are standardized.
    """
    quantizer = _made(method.kernel_quantizer)
    scope = getattr(quantizer, "scale_scope", None)
    if scope is not None and method.scale is None:
        return dataclasses.replace(method, kernel_quantizer="standardized", scale="mean_abs", scale_scope=scope)
    if scope is not None or not _takes_signs(quantizer):
        kind = type(quantizer).__name__
        raise UsageError(
            f"method '{method.base}' cannot take '+std', which would drop the values that its {kind} gives kernels: "
            f"leave '+std' out, or choose a method whose kernels are signs or scaled by mean(abs(W))"
        )
    return dataclasses.replace(method, kernel_quantizer="standardized")


def _takes_signs(quantizer: lq.quantizers.Quantizer | None) -> bool:
    """Whether a kernel quantizer returns ±1 without a scale."""
    if quantizer is None:
        return True
    # With outliers: for most kernels, IR-Net's power of two is 1.
    kernel = tf.reshape(tf.pow(tf.linspace(-1.0, 2.0, 36), 15), [3, 3, 2, 2])
    return bool(tf.reduce_all(tf.abs(quantizer(kernel)) == 1))


@_modifier("k", only="xnor")
def _with_activation_scale(method: Method) -> Method:
    """`xnor+k`: multiplies the output by K, the magnitude of the activations under the kernel; K is not folded."""
    return dataclasses.replace(method, scales_activations=True)


@_modifier("ml")
def _with_median_loss(method: Method) -> Method:
    """`+ml`: the median loss, λ = 1e-4, over all binarized layers.

    Raises:
        UsageError: the base has another penalty of kernels.
    """
    if method.kernel_regularizer is not None:
        raise UsageError(
            f"method '{method.base}' cannot take '+ml', which would replace its kernel_regularizer "
            f"{type(method.kernel_regularizer).__name__}: leave one of them out"
        )
    return dataclasses.replace(method, kernel_regularizer=MedianLoss(1e-4))


@_modifier("bma")
def _with_batch_median(method: Method) -> Method:
    """`+bma`: the batch median before each sign. Its β_c replaces a channel shift."""
    steps = tuple(step for step in method.before if step is not _shift)
    return dataclasses.replace(method, before=(_median, *steps))


@_modifier("relu", only="float")
def _with_relu(method: Method) -> Method:
    """`float+relu`: ReLU instead of the sign."""
    return dataclasses.replace(method, before=(_relu,))


@_modifier("code", only="siman")
def _with_authors_code(method: Method) -> Method:
    """`siman+code`: standardized samples before the sign, clamped kernels, PReLU after the addition.

    The kernel quantizer has the gradient "magnitude" with the unbiased variance; after each update, the latent weights
    are centred and clamped to the layer's percentiles. See `kbnn.quantizers.HalfHalf`. None of this is in the paper.
    The code's changes to the network itself are options of the network.

    Raises:
        UsageError: `+std` replaces the kernel quantizer, too.
    """
    if not isinstance(_made(method.kernel_quantizer), quantizers.HalfHalf):
        raise UsageError(f"method '{method.name}' cannot take '+code': both replace the kernels of siman, choose one")
    return dataclasses.replace(
        method,
        kernel_quantizer=lambda: quantizers.HalfHalf(gradient="magnitude", percentile=15.0, unbiased=True),
        before=(_standardized_sample, *method.before),
        after=_prelu,
    )


@_modifier("real")
def _with_nothing_binarized(method: Method) -> Method:
    """`+real`: the same layers without quantizers, as in the pre-training of PresB-Net's paper."""
    return dataclasses.replace(method.with_real_kernels(), input_quantizer=None, scales_activations=False)


def names() -> list[str]:
    """The base methods, sorted."""
    return _METHODS.names()


def modifiers() -> list[str]:
    """The modifiers that can be added to a base method with `+`, in the order of application."""
    return list(_MODIFIERS)


def describe(name: str) -> str:
    """A one-line description of a base method or a modifier (`"+ml"`).

    Raises:
        UsageError: an unknown name; close names are suggested.
    """
    modifier = _MODIFIERS.get(name.removeprefix("+")) if name.startswith("+") else None
    function = _METHODS.get(name) if modifier is None else modifier.change
    return (function.__doc__ or "").strip().partition("\n")[0]


def get(name: str) -> Method:
    """The method with a name: a base, or a base with modifiers, such as "xnor+std+ml+bma" (ML+BMA's algorithm 1).

    Raises:
        UsageError: an unknown base or modifier (close names are suggested), a repeated modifier, or one that does not
            fit the base.
    """
    base, *added = str(name).split("+")
    method = _METHODS.get(base)()
    if not isinstance(method, Method):
        raise UsageError(f"the function registered as method '{base}' must return a Method: it returned {method!r}")
    method = dataclasses.replace(method, name=base, base=method.base or base)
    for modifier in added:
        if modifier not in _MODIFIERS:
            raise unknown(f"modifier of method {base}", modifier, _MODIFIERS)
        _check_fits(method, modifier)
    if len(set(added)) < len(added):
        raise UsageError(f"method '{name}' repeats a modifier; name each one once")
    for modifier in (key for key in _MODIFIERS if key in added):
        method = dataclasses.replace(_MODIFIERS[modifier].change(method), name=f"{method.name}+{modifier}")
    return method


def _check_fits(method: Method, modifier: str) -> None:
    only = _MODIFIERS[modifier].only
    if only not in (None, method.base):
        raise UsageError(f"method '{method.base}' cannot take '+{modifier}': it belongs to '{only}'")
    if not method.is_binary and only is None:
        raise UsageError(
            f"method '{method.base}' cannot take '+{modifier}': it has no binary layers, choose a binary method"
        )


def name_of(method: Method) -> str:
    """The name by which `get` finds a method; a method that is not registered yet is registered under its own name.

    Recipes and runs record this name. To resume a run in another process, register the method there as well.

    Raises:
        UsageError: a method without a name, or with the name of a different one.
    """
    if not method.name:
        raise UsageError("a method in a recipe needs a name: give Method(name=...)")
    if "+" not in method.name and (method.name not in _METHODS or _METHODS.get(method.name) in _GIVEN):
        function = _Given(dataclasses.replace(method, base=method.base or method.name))
        _GIVEN.add(function)
        _METHODS.add(method.name, function, _Given)
    elif _settings(get(method.name)) != _settings(method.fresh()):
        raise UsageError(
            f"method '{method.name}' differs from the one registered under that name: give it a name of its own, as in "
            f"dataclasses.replace(method, name='mine')"
        )
    return method.name


@dataclass(frozen=True, eq=False)
class _Given:
    """Takes the place of a registered function for a `Method` object that was passed to a recipe."""

    method: Method

    def __call__(self) -> Method:
        return self.method.fresh()


_GIVEN: set[Callable[[], Method]] = set()


def _settings(method: Method) -> tuple[object, ...]:
    """The settings of a method, in a form that can be compared."""
    arguments = {key: _comparable(value) for key, value in method.layer_arguments().items()}
    return arguments, method.before, method.after, method.scales_activations


def _comparable(value: object) -> object:
    """A quantizer, constraint or regularizer as its class and configuration, without automatic names."""
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items() if key not in ("name", "build_config")}
    return (type(value), _comparable(value.get_config())) if hasattr(value, "get_config") else value
