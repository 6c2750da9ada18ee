"""The sign with the derivative of the hyperbolic tangent."""

import tensorflow as tf

from kbnn.compiled import widen
from kbnn.quantizers.base import Estimator, sech_squared, times
from kbnn.quantizers.registry import register


def gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """dy·(1 - tanh²(x))."""
    return times(dy, sech_squared(widen(x)))


@register("tanh")
class TanhSign(Estimator):
    """The sign with tanh's derivative.

    Forward: q(x) = +1 where x >= 0, else -1.
    Gradient: dq/dx = 1 - tanh²(x).

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="tanh")

    Source: Darabi et al., BNN+, 2018, table 1.
    """

    surrogate = staticmethod(gradient)
