"""The papers' methods by name, and composed: which quantizers, scale, penalty and activation a binary layer takes.

>>> method = kbnn.methods.get("irnet+ml+bma")
>>> y = method.convolution(x, 64, 3, name="block1_conv1")
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import larq as lq
import tensorflow as tf

from kbnn import quantizers
from kbnn.activations import hard_tanh
from kbnn.errors import UsageError, unknown
from kbnn.layers import (
    ActivationScale,
    BatchMedian,
    BinaryConv2D,
    BinaryDense,
    ChannelShift,
    Maxout,
    PReLU,
    RPReLU,
    SampleNormalization,
)
from kbnn.regularizers import Euclidean, Manhattan, MedianLoss

# A layer put on a tensor, given the tensor and the layer's name.
Step = Callable[[tf.Tensor, str], tf.Tensor]


def _median(x: tf.Tensor, name: str) -> tf.Tensor:
    return BatchMedian(name=f"{name}_median")(x)


def _shift(x: tf.Tensor, name: str) -> tf.Tensor:
    return ChannelShift(name=f"{name}_shift")(x)


def _standardized_sample(x: tf.Tensor, name: str) -> tf.Tensor:
    # A dense layer's input is one pixel, which has no spatial statistics.
    return x if len(x.shape) != 4 else SampleNormalization(name=f"{name}_standardized")(x)


def _clip(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.Activation(hard_tanh, name=f"{name}_clip")(x)


def _relu(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.ReLU(name=f"{name}_relu")(x)


def _hard_tanh(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.Activation(hard_tanh, name=name)(x)


def _prelu(x: tf.Tensor, name: str) -> tf.Tensor:
    return PReLU(name=name)(x)


def _maxout(x: tf.Tensor, name: str) -> tf.Tensor:
    return Maxout(name=name)(x)


def _rprelu(x: tf.Tensor, name: str) -> tf.Tensor:
    return RPReLU(name=name)(x)


# What can follow a shortcut's addition, by name.
ACTIVATIONS: dict[str, Step | None] = {
    "none": None,
    "hard_tanh": _hard_tanh,
    "prelu": _prelu,
    "rprelu": _rprelu,
    "maxout": _maxout,
}


@dataclass(frozen=True)
class Method:
    """What makes one network binary.

    Quantizers and constraints are made anew for every layer; penalties are shared, so that a schedule sets one number
    and the median loss knows over how many layers it averages. Another network takes another object: `get` it again,
    or `fresh()`.
    """

    name: str
    base: str
    input_quantizer: Callable[[], Any] | None = None
    kernel_quantizer: Callable[[], Any] | None = None
    kernel_constraint: Callable[[], Any] | None = None
    kernel_regularizer: MedianLoss | None = None
    scale: str | None = None
    scale_initializer: str = "mean"
    scale_regularizer: Manhattan | Euclidean | None = None
    before: tuple[Step, ...] = ()
    after: Step | None = None
    scales_activations: bool = False

    @property
    def is_binary(self) -> bool:
        """Whether convolutions multiply signs: every method but the real-valued twin."""
        return self.base != "float"

    def fresh(self) -> "Method":
        """The same method for another network: with penalties of its own."""
        return dataclasses.replace(
            self,
            kernel_regularizer=_copied(self.kernel_regularizer),
            scale_regularizer=_copied(self.scale_regularizer),
        )

    def with_activation(self, name: str) -> "Method":
        """The same method with another activation after the shortcut's addition.

        Args:
            name: "none", "hard_tanh", "prelu", "rprelu" or "maxout" (two slopes, AdaBin).

        Raises:
            UsageError: an unknown name; near names are offered.
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
        **kwargs: Any,
    ) -> tf.Tensor:
        """`(B, H, W, C)` to `(B, H', W', filters)` by one binary convolution, `name`, and what comes before its sign.

        Args:
            x: real-valued activations.
            filters: number of output channels.
            kernel_size: height and width, or one number for both.
            strides: vertical and horizontal, or one number for both.
            padding: "same" or "valid".
            groups: as `BinaryConv2D`.
            name: the convolution's; layers before it append to it.
            **kwargs: further arguments of `BinaryConv2D`, in the place of the method's own.
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
        x = self._prepared(x, name)
        return self._scaled(layer(x), x, name, kernel_size, strides, padding)

    def dense(self, x: tf.Tensor, units: int, *, name: str, **kwargs: Any) -> tf.Tensor:
        """`(B, C)` to `(B, units)`, as `convolution`."""
        layer = BinaryDense(units, name=name, **{**self.layer_arguments(), **kwargs})
        x = self._prepared(x, name)
        return self._scaled(layer(x), x, name, 1)

    def activation(self, x: tf.Tensor, *, name: str) -> tf.Tensor:
        """What the method puts after the shortcut's addition: nothing, but for a few."""
        return x if self.after is None else self.after(x, name)

    def _prepared(self, x: tf.Tensor, name: str) -> tf.Tensor:
        for step in self.before:
            x = step(x, name)
        return x

    def _scaled(self, y: tf.Tensor, x: tf.Tensor, name: str, *window: Any) -> tf.Tensor:
        """`y`, made of `x`: as it is, or multiplied by the magnitude of `x`."""
        return ActivationScale(*window, name=f"{name}_magnitude")([y, x]) if self.scales_activations else y

    def layer_arguments(self) -> dict[str, Any]:
        """The keyword arguments of one `BinaryConv2D` or `BinaryDense`, for models that are written by hand.

        What the method puts before the sign and after the addition is not among them.
        """
        return {
            "input_quantizer": self.input_quantizer and self.input_quantizer(),
            "kernel_quantizer": self.kernel_quantizer and self.kernel_quantizer(),
            "kernel_constraint": self.kernel_constraint and self.kernel_constraint(),
            "kernel_regularizer": self.kernel_regularizer,
            "scale": self.scale,
            "scale_initializer": self.scale_initializer,
            "scale_regularizer": self.scale_regularizer,
        }


def _copied(regularizer: Any) -> Any:
    return regularizer and type(regularizer)(float(regularizer.strength.numpy()))


def _real_twin() -> Method:
    """The real-valued twin with clip in the place of the sign; `float+relu`: with ReLU. Weights load by name."""
    return Method("float", "float", before=(_clip,))


def _bnn() -> Method:
    """BNN: straight-through signs, latent weights held in [-1, 1]."""
    return Method("bnn", "bnn", quantizers.SteSign, quantizers.SteSign, lambda: lq.constraints.WeightClip(1.0))


def _xnor() -> Method:
    """XNOR-Net: kernels scaled by their mean magnitude, and its gradient."""
    return Method("xnor", "xnor", quantizers.SteSign, quantizers.XNORSign)


def _dorefa() -> Method:
    """DoReFa-Net at 1 bit: one scale a layer, kernels' gradients pass unchanged."""
    return Method("dorefa", "dorefa", quantizers.SteSign, quantizers.DoReFaSign)


def _bireal() -> Method:
    """Bi-Real Net: ApproxSign activations, magnitude-aware kernels."""
    return Method("bireal", "bireal", quantizers.ApproxSign, quantizers.MagnitudeAwareSign)


def _irnet() -> Method:
    """IR-Net: Libra kernels, the error decay estimator on both sides, hardtanh after the addition."""
    return Method(
        "irnet",
        "irnet",
        quantizers.EDESign,
        lambda: quantizers.LibraSign(gradient=quantizers.EDESign()),
        after=_hard_tanh,
    )


def _siman() -> Method:
    """SiMaN: half-half kernels by magnitude, learned scale. `siman+code`: with what the authors' code adds."""
    return Method("siman", "siman", quantizers.ApproxSign, quantizers.HalfHalf, scale="learned")


def _trainable_sign_swish() -> quantizers.SignSwish:
    return quantizers.SignSwish(5.0, trainable_beta=True)


def _bnnplus_r1() -> Method:
    """BNN+ with the Manhattan penalty: trainable SignSwish on both sides, learned scale from the median."""
    return Method(
        "bnnplus_r1",
        "bnnplus_r1",
        _trainable_sign_swish,
        _trainable_sign_swish,
        scale="learned",
        scale_initializer="median",
        scale_regularizer=Manhattan(),
    )


def _bnnplus_r2() -> Method:
    """BNN+ with the Euclidean penalty: trainable SignSwish on both sides, learned scale from the mean."""
    return Method(
        "bnnplus_r2",
        "bnnplus_r2",
        _trainable_sign_swish,
        _trainable_sign_swish,
        scale="learned",
        scale_regularizer=Euclidean(),
    )


def _react() -> Method:
    """ReActNet: learned thresholds before the sign, RPReLU after the addition."""
    return Method(
        "react",
        "react",
        quantizers.ApproxSign,
        quantizers.MagnitudeAwareSign,
        before=(_shift,),
        after=_rprelu,
    )


def _presb() -> Method:
    """PresB-Net's signs and kernels, leaky and magnitude-aware (code); all else of it is in the networks presb*."""
    return Method("presb", "presb", quantizers.LeakySteSign, quantizers.MagnitudeAwareSign)


_BASES: dict[str, Callable[[], Method]] = {
    "bireal": _bireal,
    "bnn": _bnn,
    "bnnplus_r1": _bnnplus_r1,
    "bnnplus_r2": _bnnplus_r2,
    "dorefa": _dorefa,
    "float": _real_twin,
    "irnet": _irnet,
    "presb": _presb,
    "react": _react,
    "siman": _siman,
    "xnor": _xnor,
}

# The bases whose kernel quantizer scales by the mean magnitude.
_SCALING = ("bireal", "dorefa", "presb", "react", "xnor")


def _with_standardized_kernels(method: Method) -> Method:
    """`+std`: standardized kernels; a scale that came with the kernel quantizer moves to the output."""
    scale = "mean_abs" if method.base in _SCALING else method.scale
    return dataclasses.replace(method, kernel_quantizer=quantizers.StandardizedSign, scale=scale)


def _with_median_loss(method: Method) -> Method:
    """`+ml`: the median loss, λ = 1e-4, over all binarized layers."""
    return dataclasses.replace(method, kernel_regularizer=MedianLoss(1e-4))


def _with_batch_median(method: Method) -> Method:
    """`+bma`: the batch median before each sign; its β_c is what a channel shift would add."""
    steps = tuple(step for step in method.before if step is not _shift)
    return dataclasses.replace(method, before=(_median, *steps))


def _with_relu(method: Method) -> Method:
    """`float+relu`: ReLU in the place of the sign."""
    return dataclasses.replace(method, before=(_relu,))


def _with_authors_code(method: Method) -> Method:
    """`siman+code`: standardized samples before the sign, gradient by magnitude, PReLU after the addition."""
    return dataclasses.replace(
        method,
        kernel_quantizer=lambda: quantizers.HalfHalf(gradient="magnitude", percentile=15.0),
        before=(_standardized_sample,),
        after=_prelu,
    )


def _with_activation_scale(method: Method) -> Method:
    """`xnor+k`: K, the magnitude of the activations under the kernel, multiplies the output; it cannot fold."""
    return dataclasses.replace(method, scales_activations=True)


_MODIFIERS: dict[str, Callable[[Method], Method]] = {
    "std": _with_standardized_kernels,
    "k": _with_activation_scale,
    "ml": _with_median_loss,
    "bma": _with_batch_median,
    "relu": _with_relu,
    "code": _with_authors_code,
}
# Modifiers that belong to one base.
_ONLY = {"relu": "float", "code": "siman", "k": "xnor"}


def names() -> list[str]:
    """The base methods, sorted."""
    return sorted(_BASES)


def modifiers() -> list[str]:
    """What can be added to a base method with `+`, in the order they are applied in."""
    return list(_MODIFIERS)


def describe(name: str) -> str:
    """One line about a base method or a modifier (`"+ml"`).

    Raises:
        UsageError: an unknown name; near names are offered.
    """
    known: dict[str, Callable[..., Method]] = {**_BASES, **{f"+{key}": value for key, value in _MODIFIERS.items()}}
    if name not in known:
        raise unknown("method", name, known)
    return (known[name].__doc__ or "").splitlines()[0]


def get(name: str) -> Method:
    """The method of a name: a base, or a base with modifiers, such as "xnor+std+ml+bma" (ML+BMA's algorithm 1).

    Raises:
        UsageError: an unknown base or modifier (near names are offered), one named twice, or one that the base cannot
            take.
    """
    base, *added = name.split("+")
    if base not in _BASES:
        raise unknown("method", base, _BASES)
    for modifier in added:
        if modifier not in _MODIFIERS:
            raise unknown(f"modifier of method {base}", modifier, _MODIFIERS)
        _check_fits(base, modifier)
    if len(set(added)) < len(added):
        raise UsageError(f"method '{name}' names a modifier twice; name each once")
    method = _BASES[base]()
    for modifier in (key for key in _MODIFIERS if key in added):
        method = dataclasses.replace(_MODIFIERS[modifier](method), name=f"{method.name}+{modifier}")
    return method


def _check_fits(base: str, modifier: str) -> None:
    only = _ONLY.get(modifier, base)
    if only != base:
        raise UsageError(f"method '{base}' cannot take '+{modifier}': it belongs to '{only}'")
    if base == "float" and modifier not in _ONLY:
        raise UsageError(f"method 'float' cannot take '+{modifier}': it has no binary layers, choose a binary method")
