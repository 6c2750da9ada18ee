"""The papers' methods by name: which quantizers, scale, regularizer and activation a binary layer takes.

>>> method = kbnn.methods.get("bireal")
>>> y = method.convolution(x, 64, 3, name="block1_conv1")
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import larq as lq
import tensorflow as tf

from kbnn import quantizers
from kbnn.errors import unknown
from kbnn.layers import BinaryConv2D, BinaryDense

Wrap = Callable[[tf.Tensor, str], tf.Tensor]


def _identity(x: tf.Tensor, name: str) -> tf.Tensor:
    return x


def _clip(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.Activation("hard_tanh", name=f"{name}_clip")(x)


@dataclass(frozen=True)
class Method:
    """What makes a network binary. Each field that is a class or function is called anew for every layer."""

    name: str
    base: str
    input_quantizer: Callable[[], Any] | None = None
    kernel_quantizer: Callable[[], Any] | None = None
    kernel_constraint: Callable[[], Any] | None = None
    before: Wrap = _identity
    after: Wrap = _identity

    @property
    def is_binary(self) -> bool:
        """Whether convolutions multiply signs: every method but the real-valued twin."""
        return self.base != "float"

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
            **kwargs: further arguments of `BinaryConv2D`.
        """
        layer = BinaryConv2D(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            groups=groups,
            name=name,
            **{**self._arguments(), **kwargs},
        )
        return layer(self.before(x, name))

    def dense(self, x: tf.Tensor, units: int, *, name: str, **kwargs: Any) -> tf.Tensor:
        """`(B, C)` to `(B, units)`, as `convolution`."""
        return BinaryDense(units, name=name, **{**self._arguments(), **kwargs})(self.before(x, name))

    def activation(self, x: tf.Tensor, *, name: str) -> tf.Tensor:
        """What the method puts after the shortcut's addition."""
        return self.after(x, name)

    def _arguments(self) -> dict[str, Any]:
        return {
            "input_quantizer": self.input_quantizer and self.input_quantizer(),
            "kernel_quantizer": self.kernel_quantizer and self.kernel_quantizer(),
            "kernel_constraint": self.kernel_constraint and self.kernel_constraint(),
        }


_BASES: dict[str, Callable[[], Method]] = {
    "float": lambda: Method("float", "float", before=_clip),
    "bnn": lambda: Method("bnn", "bnn", quantizers.SteSign, quantizers.SteSign, lambda: lq.constraints.WeightClip(1.0)),
    "xnor": lambda: Method("xnor", "xnor", quantizers.SteSign, quantizers.XNORSign),
    "bireal": lambda: Method("bireal", "bireal", quantizers.ApproxSign, quantizers.MagnitudeAwareSign),
}


def names() -> list[str]:
    """The base methods, sorted."""
    return sorted(_BASES)


def get(name: str) -> Method:
    """The method of a name.

    Raises:
        UsageError: an unknown name; near names are offered.
    """
    if name not in _BASES:
        raise unknown("method", name, _BASES)
    return _BASES[name]()
