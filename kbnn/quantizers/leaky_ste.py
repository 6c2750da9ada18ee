"""The straight-through estimator with a small gradient outside its window."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import widen
from kbnn.errors import UsageError
from kbnn.quantizers.base import Estimator, times
from kbnn.quantizers.registry import register


def gradient(x: tf.Tensor, dy: tf.Tensor, slope: float = 0.01) -> tf.Tensor:
    """dy on abs(x) < 1, else slope·dy."""
    return times(dy, tf.where(tf.abs(widen(x)) < 1, 1.0, slope))


@register("leaky_ste")
class LeakySteSign(Estimator):
    """The sign with a surrogate gradient that does not vanish for large activations.

    Forward: q(x) = +1 where x >= 0, else -1.
    Gradient: dq/dx = 1 on abs(x) < 1, else slope.

    Args:
        slope: the derivative outside (-1, 1), not negative.

    Raises:
        UsageError: a negative slope.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="leaky_ste")

    Source: PresB-Net, 2022, the authors' code; the paper uses the plain straight-through estimator.
    """

    def __init__(self, slope: float = 0.01, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if not slope >= 0:
            raise UsageError(f"LeakySteSign: slope must not be negative, received {slope}")
        self.slope = slope

    surrogate = staticmethod(gradient)

    def parameters(self) -> tuple[float]:
        return (self.slope,)

    def get_config(self) -> Config:
        return {**super().get_config(), "slope": self.slope}
