"""SiMaN's optimal kernel binarizer: the code nearest in angle to the magnitudes."""

import tensorflow as tf

from kbnn.quantizers.base import power_of_two
from kbnn.quantizers.registry import register
from kbnn.quantizers.siman import MagnitudeCode
from kbnn.selection import largest


def nearest_in_angle(magnitude: tf.Tensor) -> tf.Tensor:
    """Marks each column's k* largest magnitudes, k* = argmax over k of (the sum of the k largest)/√k."""
    scaled = magnitude / power_of_two(tf.reduce_max(magnitude, 0))
    # In float64: the objective is so flat near its maximum that float32 would be off by many ranks.
    descending = tf.cast(tf.sort(scaled, 0, "DESCENDING"), tf.float64)
    rank = tf.range(1, descending.shape[0] + 1)[:, tf.newaxis]
    cosine = tf.cumsum(descending) / tf.sqrt(tf.cast(rank, tf.float64))
    return largest(magnitude, tf.argmax(cosine, output_type=tf.int32) + 1)


@register("optimal_magnitude", kind="kernel", presets={"optimal_magnitude_identity": {"gradient": "identity"}})
class OptimalMagnitude(MagnitudeCode):
    """SiMaN's analytical optimum: the {0, 1} code of smallest angle to a filter's magnitudes, as {-1, +1}.

    Forward: q(W) = 2b - 1, b = 1 for the k* largest abs(W) of each filter, else 0,
    k* = argmax_k Σ_{i<=k} abs(w)_(i)/√k, abs(w)_(i) the i-th largest.
    Gradient: as for `HalfHalf`.

    It marks 37 % of Laplacian and 54 % of Gaussian weights. It sorts each filter in every step, which is O(n log n):
    use it for analysis and for the paper's comparisons (SiMaN1, SiMaN2). No method trains with it; the paper's choice
    is `HalfHalf`, which selects in O(n).

    Args:
        gradient: "identity" or "magnitude".
        unbiased: as for `HalfHalf`.

    Raises:
        UsageError: an unknown gradient, or the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="optimal_magnitude", scale="learned")

    Source: Lin et al., SiMaN, 2022, equation 12 and corollary 1.
    Deviates from the paper: codes are {-1, +1}, which the device multiplies, not {0, +1}.
    """

    def __init__(self, gradient: str = "magnitude", unbiased: bool = False, **kwargs: object) -> None:
        super().__init__(gradient, unbiased, **kwargs)

    def encoding(self, magnitude: tf.Tensor) -> tf.Tensor:
        return nearest_in_angle(magnitude)
