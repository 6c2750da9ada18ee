"""SiMaN's kernel binarizer: the larger half of the magnitudes is +1."""

from typing import Any

import tensorflow as tf

from kbnn.compiled import compiled
from kbnn.errors import UsageError
from kbnn.quantizers.siman import MagnitudeCode
from kbnn.selection import kth_largest, largest

# Odd, so that it is not a multiple of the number of filters, over which it strides.
SAMPLE = 65535


def larger_half(magnitude: tf.Tensor) -> tf.Tensor:
    """Marks the ⌊n/2⌋ largest of each column's n magnitudes."""
    return largest(magnitude, magnitude.shape[0] // 2)


@compiled
def between_percentiles(magnitude: tf.Tensor, percentile: tf.Tensor) -> tf.Tensor:
    """Where a layer's magnitudes are neither under their p-th nor over their (100 - p)-th percentile.

    The percentiles are those of about 65535 of the weights, evenly spaced.
    """
    values = tf.reshape(magnitude, [-1, 1])
    sample = values[:: max(values.shape[0] // SAMPLE, 1)]
    n = sample.shape[0]
    rank = tf.maximum(tf.cast(tf.math.ceil(percentile / 100 * n), tf.int32), 1)
    return (magnitude >= kth_largest(sample, n + 1 - rank)) & (magnitude <= kth_largest(sample, rank))


@tf.keras.utils.register_keras_serializable(package="kbnn")
class HalfHalf(MagnitudeCode):
    """SiMaN's kernels: +1 for the larger half of a filter's magnitudes, -1 for the rest, whatever their signs.

    Forward: q(W) = 2b - 1, b = 1 for the ⌊n/2⌋ largest abs(W) of each filter, else 0.
    Gradient: "identity": dL/dW = dL/dq. "magnitude": W is first standardized, w₂ = (W - mean)/√(var + 1e-5), b goes
    by abs(w₂), dL/dw₂ = dL/dq·sign(w₂), and on through mean and variance.

    Train it without an L2 penalty: that makes the weights Laplacian, and half of them a bad code.

    "magnitude" is the default because it trains better: 40.2 % (39.0 to 41.0) against 30.2 % (29.0 to 31.3) of held-out
    CIFAR-10 images after one epoch, three seeds each of a ResNet-20 half as wide on images of half the size
    (`results/variants.csv`; `benchmarks/variants.py`).

    Args:
        gradient: "identity", the paper's, or "magnitude", the authors' code's.
        percentile: with "magnitude", magnitudes under the layer's p-th and over its (100 - p)-th percentile pass no
            gradient. `percentile` is a variable once the layer is built; the authors' code lets it fall from 15 to 0.

    Raises:
        UsageError: an unknown gradient, a percentile outside 0..50 or without "magnitude", or it is given activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer=kbnn.quantizers.HalfHalf(), scale="learned")

    Source: Lin et al., SiMaN, 2022, equations 6 and 20; "magnitude" and the percentile are the authors' code.
    Deviates from the paper: codes are {-1, +1}, which is what the device multiplies, not {0, +1}.
    """

    def __init__(self, gradient: str = "magnitude", percentile: float = 0.0, **kwargs: Any) -> None:
        super().__init__(gradient, **kwargs)
        if not 0 <= percentile < 50:
            raise UsageError(f"HalfHalf: percentile must be in 0..50, received {percentile}")
        if percentile and gradient != "magnitude":
            raise UsageError(f"HalfHalf: percentile needs gradient='magnitude', received gradient='{gradient}'")
        self.percentile = self._initial_percentile = percentile

    def build(self, input_shape: tf.TensorShape) -> None:
        if self._initial_percentile:
            self.percentile = self.add_weight(
                "percentile",
                (),
                dtype=tf.float32,
                initializer=tf.keras.initializers.Constant(self._initial_percentile),
                trainable=False,
                experimental_autocast=False,
            )
        super().build(input_shape)

    def encoding(self, magnitude: tf.Tensor) -> tf.Tensor:
        return larger_half(magnitude)

    def passing(self, magnitude: tf.Tensor) -> tf.Tensor | None:
        if not self._initial_percentile:
            return None
        return between_percentiles(magnitude, tf.convert_to_tensor(self.percentile))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "percentile": self._initial_percentile}
