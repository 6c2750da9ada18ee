"""Bi-Real Net's kernel binarizer."""

from collections.abc import Callable

import larq as lq
import tensorflow as tf

from kbnn._keras import Config
from kbnn.errors import unknown
from kbnn.quantizers.base import KernelQuantizer, ScaleScope, clipped, mean_magnitude, sign
from kbnn.quantizers.registry import register


def gradient(w: tf.Tensor, dy: tf.Tensor, clip_value: float | None = 1.0) -> tf.Tensor:
    """dy·α·1[abs(W) <= clip_value], α = mean(abs(W)) per filter, a constant."""
    return clipped(w, dy * tf.cast(mean_magnitude(w), dy.dtype), clip_value)


GRADIENTS: dict[str, Callable[[tf.Tensor, tf.Tensor, float | None], tf.Tensor]] = {
    "magnitude": gradient,
    "ste": clipped,
}


def magnitude_aware_sign(w: tf.Tensor, clip_value: float | None = 1.0, gradient: str = "magnitude") -> tf.Tensor:
    """α·sign(W), α = mean(abs(W)) per filter, with one of `GRADIENTS`."""

    @tf.custom_gradient
    def binarize(w: tf.Tensor) -> tf.Tensor:
        return tf.cast(mean_magnitude(w), w.dtype) * sign(w), lambda dy: GRADIENTS[gradient](w, dy, clip_value)

    return binarize(w)


@register(
    "magnitude_aware",
    kind="kernel",
    aliases=("magnitude_aware_sign",),
    presets={"magnitude_aware_ste": {"gradient": "ste"}},
)
class MagnitudeAwareSign(KernelQuantizer, lq.quantizers.MagnitudeAwareSign):
    """Bi-Real Net's kernels: the sign, scaled by each filter's mean magnitude, which passes no gradient.

    Forward: q(W) = α·sign(W), α = mean(abs(W)) per filter.
    Gradient: "magnitude": dL/dW = dL/dq·α·1[abs(W) <= clip_value]. "ste": the same without α.

    Larq's class of the same name computes the mean in the kernel's precision, which can overflow; this one uses
    float32.

    Args:
        clip_value: the largest magnitude of a weight that receives a gradient; None for no limit.
        gradient: "magnitude" (the paper's) or "ste" (PresB-Net's code, after ReActNet's).

    Raises:
        UsageError: an unknown gradient, or the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer="magnitude_aware")

    Source: Liu et al., Bi-Real Net, 2018, equations 6 and 7.
    """

    scale_scope: ScaleScope = "filter"

    def __init__(self, clip_value: float | None = 1.0, gradient: str = "magnitude", **kwargs: object) -> None:
        super().__init__(clip_value=clip_value, **kwargs)
        if gradient not in GRADIENTS:
            raise unknown("gradient of MagnitudeAwareSign", gradient, GRADIENTS)
        self.gradient = gradient

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return magnitude_aware_sign(inputs, self.clip_value, self.gradient)

    def get_config(self) -> Config:
        return {**super().get_config(), "gradient": self.gradient}
