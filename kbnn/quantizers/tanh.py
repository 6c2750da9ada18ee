"""The hyperbolic tangent's derivative as the sign's."""

import tensorflow as tf

from kbnn.compiled import compiled, widen
from kbnn.quantizers.base import Estimator, sech_squared, surrogate_sign, times


def gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """dy·(1 - tanh²(x))."""
    return times(dy, sech_squared(widen(x)))


_gradient = compiled(gradient)


def tanh_sign(x: tf.Tensor) -> tf.Tensor:
    """sign(x); its gradient is `gradient`."""
    return surrogate_sign(x, _gradient)


@tf.keras.utils.register_keras_serializable(package="kbnn")
class TanhSign(Estimator):
    """The sign with tanh's derivative.

    Forward: q(x) = +1 where x >= 0, else -1.
    Gradient: dq/dx = 1 - tanh²(x).

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer=kbnn.quantizers.TanhSign())

    Source: Darabi et al., BNN+, 2018, table 1.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tanh_sign(inputs)

    surrogate = staticmethod(gradient)
