"""Surrogate gradients by name, including Larq's."""

from collections.abc import Callable

import larq as lq
import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import widen
from kbnn.errors import UsageError
from kbnn.quantizers.base import Estimator, Gradient, KernelQuantizer, Parameters, clipped, sign, surrogate_of, times
from kbnn.quantizers.registry import SIGNS, Identifier, get, levels_of, names, register

register("ste", aliases=("ste_sign", "sign"))(lq.quantizers.SteSign)
register("approx_sign")(lq.quantizers.ApproxSign)


def approx_sign_gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """dy·(2 - 2·abs(x)) on abs(x) <= 1, else 0 (Bi-Real Net, equation 3)."""
    return times(dy, tf.maximum(2 - 2 * tf.abs(widen(x)), 0.0))


def estimator(identifier: Identifier) -> lq.quantizers.Quantizer:
    """Creates a quantizer from a surrogate gradient's name or a Keras configuration; returns a quantizer unchanged.

    Raises:
        UsageError: an unknown name (close names are suggested), or a quantizer without a surrogate gradient.
    """
    quantizer = get(identifier, "gradient", "activation")
    surrogate(quantizer)
    return quantizer


def serialize(quantizer: lq.quantizers.Quantizer) -> Config:
    """The Keras configuration of an estimator, which `estimator` accepts."""
    return tf.keras.utils.serialize_keras_object(quantizer)


class EstimatedKernel(KernelQuantizer):
    """A kernel quantizer that takes the signs of a standardized kernel by `self.estimator`.

    Args:
        gradient: the surrogate of these signs: a name such as "ste" or "ede", or a quantizer.

    Raises:
        UsageError: an unknown gradient.
    """

    def __init__(self, gradient: Identifier = "ste", **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.estimator = estimator(gradient)

    def build(self, input_shape: tf.TensorShape) -> None:
        with tf.name_scope(self.estimator.name):
            self.estimator.build(input_shape)
        super().build(input_shape)

    def get_config(self) -> Config:
        return {**super().get_config(), "gradient": serialize(self.estimator)}


def input_gradient(quantizer: object) -> Gradient:
    """The surrogate gradient of a quantizer, one of kbnn's or Larq's, as a function (x, dy) -> dL/dx.

    Raises:
        UsageError: the quantizer has none.
    """
    gradient, parameters = surrogate(quantizer)
    return lambda x, dy: gradient(x, dy, *parameters)


def surrogate(quantizer: object) -> tuple[Gradient, Parameters]:
    """The surrogate gradient as a function (x, dy, *parameters) -> dL/dx that all quantizers of a class share.

    Raises:
        UsageError: the quantizer has none.
    """
    if isinstance(quantizer, Estimator):
        return surrogate_of(quantizer)
    if isinstance(quantizer, lq.quantizers.SteSign):
        return clipped, (quantizer.clip_value,)
    if isinstance(quantizer, lq.quantizers.ApproxSign):
        return approx_sign_gradient, ()
    raise UsageError(
        f"no surrogate gradient: received {quantizer!r}; pass one of {', '.join(names('activation'))} or its quantizer"
    )


def binarizer(quantizer: object) -> tuple[Callable[..., tf.Tensor], Parameters] | None:
    """The forward pass as a function (x, *parameters) -> ±1 that all quantizers of a class share, and the parameters.

    None if the quantizer may compute something else: it overrides `call`, or does not declare the levels ±1.
    """
    if levels_of(quantizer) != SIGNS:
        return None
    call = getattr(type(quantizer), "call", None)
    if isinstance(quantizer, Estimator) and call is Estimator.call:
        return type(quantizer).binarize, quantizer.parameters()
    return (sign, ()) if call in (lq.quantizers.SteSign.call, lq.quantizers.ApproxSign.call) else None
