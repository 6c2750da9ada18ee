"""IR-Net's error decay estimator."""

import math

import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import widen
from kbnn.errors import UsageError
from kbnn.quantizers.base import Estimator, sech_squared, times
from kbnn.quantizers.registry import register


def gradient(x: tf.Tensor, dy: tf.Tensor, t: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """dy·k·t·(1 - tanh²(t·x))."""
    return times(dy, k * t * sech_squared(t * widen(x)))


@register("ede")
class EDESign(Estimator):
    """The sign with a surrogate gradient that sharpens during training.

    Forward: q(x) = +1 where x >= 0, else -1.
    Gradient: dq/dx = k·t·(1 - tanh²(t·x)).

    `t` and `k` are variables once the layer is built. In epoch e of E, a schedule sets them to
    t = Tmin·(Tmax/Tmin)^(e/E), k = max(1/t, 1), Tmin = 1e-3, Tmax = 10: `kbnn.training.EDESchedule`.

    Args:
        t: initial sharpness, positive.
        k: initial height, positive.

    Raises:
        UsageError: t or k is not positive.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="ede", kernel_quantizer="libra")

    Source: Qin et al., IR-Net, 2020, equations 13 to 16; Tmin and Tmax from the authors' code.
    """

    def __init__(self, t: float = 1e-3, k: float = 1e3, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if not (t > 0 and k > 0):
            raise UsageError(f"EDESign: t and k must be positive, received t={t}, k={k}")
        # Numbers until the layer is built.
        self.t: tf.Variable = t
        self.k: tf.Variable = k
        self._initial_t, self._initial_k = t, k

    def build(self, input_shape: tf.TensorShape) -> None:
        self.t = self._add_parameter("t", self._initial_t)
        self.k = self._add_parameter("k", self._initial_k)
        super().build(input_shape)

    surrogate = staticmethod(gradient)

    def parameters(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.t), tf.convert_to_tensor(self.k)

    def schedule(self, progress: float, ede: tuple[float, float] = (1e-3, 10.0)) -> None:
        """Sets t = Tmin·(Tmax/Tmin)^progress and k = max(1/t, 1).

        Args:
            progress: e/E, the completed share of the training.
            ede: Tmin and Tmax, positive.

        Raises:
            UsageError: Tmin or Tmax is not positive.
        """
        lowest, highest = ede
        if not (0 < lowest < math.inf and 0 < highest < math.inf):
            raise UsageError(f"EDESign: Tmin and Tmax must be positive and finite, received {lowest} and {highest}")
        t = lowest * (highest / lowest) ** progress
        self.t.assign(t)
        self.k.assign(max(1 / t, 1.0))

    def get_config(self) -> Config:
        return {**super().get_config(), "t": self._initial_t, "k": self._initial_k}
