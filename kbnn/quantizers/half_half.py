"""SiMaN's kernel binarizer: the larger half of a filter's magnitudes becomes +1."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import compiled
from kbnn.errors import UsageError
from kbnn.quantizers.base import Constraint, filter_axes, filter_size
from kbnn.quantizers.registry import register
from kbnn.quantizers.siman import MagnitudeCode
from kbnn.selection import kth_largest, largest

# Odd, so that the stride over the weights is not a multiple of the number of filters.
SAMPLE = 65535


def larger_half(magnitude: tf.Tensor) -> tf.Tensor:
    """Marks the ⌊n/2⌋ largest of each column's n magnitudes."""
    return largest(magnitude, magnitude.shape[0] // 2)


@compiled
def clamped(w: tf.Tensor, percentile: tf.Tensor) -> tf.Tensor:
    """W - mean(W) per filter, clamped to the p-th and the (100 - p)-th percentile of the whole layer's; float32.

    The percentiles are estimated from about 65535 evenly spaced weights.
    """
    centred = w - tf.reduce_sum(w * (1.0 / filter_size(w)), filter_axes(w))
    values = tf.reshape(centred, [-1, 1])
    sample = values[:: max(values.shape[0] // SAMPLE, 1)]
    n = sample.shape[0]
    rank = tf.maximum(tf.cast(tf.math.ceil(percentile / 100 * n), tf.int32), 1)
    inside = tf.clip_by_value(centred, kth_largest(sample, n + 1 - rank), kth_largest(sample, rank))
    # At percentile 0, the extremes of the sample would clamp weights, because they are not those of the layer.
    return tf.where(percentile > 0, inside, centred)


@register("half_half", kind="kernel", presets={"half_half_identity": {"gradient": "identity"}})
class HalfHalf(MagnitudeCode):
    """SiMaN's kernels: +1 for the larger half of a filter's magnitudes, -1 for the rest, whatever their signs.

    Forward: q(W) = 2b - 1, b = 1 for the ⌊n/2⌋ largest abs(W) of each filter, else 0.
    Gradient: "identity": dL/dW = dL/dq. "magnitude": W is first standardized, w₂ = (W - mean)/√(var + 1e-5), b marks
    the larger abs(w₂), dL/dw₂ = dL/dq·sign(w₂), then through variance and mean.
    After each update, with a percentile p: W = W - mean(W) per filter, clamped to the p-th and (100 - p)-th percentile
    of the layer.

    Train it without an L2 penalty: with one, the weights become Laplacian, and half of them is a poor code for those.

    "magnitude" is the default because it trains better: 40.2 % (39.0 to 41.0) against 30.2 % (29.0 to 31.3) of held-out
    CIFAR-10 images after one epoch, three seeds each of a ResNet-20 half as wide on images of half the size
    (`results/variants.csv`; `benchmarks/variants.py`).

    Args:
        gradient: "identity" (the paper's) or "magnitude" (the authors' code's).
        percentile: p in percent; 0 for no clamping (the paper). A variable once the layer is built. The authors' code
            lowers it from 15 to 0 during training.
        unbiased: whether var divides by n - 1 (the authors' code) instead of n. It does not change q.

    Raises:
        UsageError: an unknown gradient, a percentile outside 0..50, or the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="half_half", scale="learned")

    Source: Lin et al., SiMaN, 2022, equations 6 and 20; "magnitude", `percentile` and `unbiased` are from its code.
    Deviates from the paper: codes are {-1, +1}, which the device multiplies, not {0, +1}.
    """

    def __init__(
        self, gradient: str = "magnitude", percentile: float = 0.0, unbiased: bool = False, **kwargs: object
    ) -> None:
        super().__init__(gradient, unbiased, **kwargs)
        if not 0 <= percentile < 50:
            raise UsageError(f"HalfHalf: percentile must be in 0..50, received {percentile}")
        # A number until the layer is built.
        self.percentile: tf.Variable = percentile
        self._initial_percentile = percentile

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

    def constraint(self) -> Constraint | None:
        return self._clamped if self._initial_percentile else None

    def _clamped(self, w: tf.Variable) -> tf.Tensor:
        return clamped(tf.convert_to_tensor(w), tf.convert_to_tensor(self.percentile))

    @property
    def is_scheduled(self) -> bool:
        """Whether `schedule` has an effect: only on a quantizer with a percentile."""
        return bool(self._initial_percentile)

    def schedule(self, progress: float, percentile: float | None = None) -> None:
        """Sets p = p₀·(1 - progress) if there is a percentile.

        Args:
            progress: e/E, the completed share of the training.
            percentile: p₀; the initial percentile if not given.

        Raises:
            UsageError: p₀ is outside 0..50.
        """
        if not self.is_scheduled:
            return
        begin = self._initial_percentile if percentile is None else percentile
        if not 0 <= begin < 50:
            raise UsageError(f"HalfHalf: percentile must be in 0..50, received {begin}")
        self.percentile.assign(begin * (1 - progress))

    def get_config(self) -> Config:
        return {**super().get_config(), "percentile": self._initial_percentile}
