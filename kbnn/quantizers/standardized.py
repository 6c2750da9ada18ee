"""The standardized kernel binarizer of ML+BMA's training algorithm."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.errors import unknown
from kbnn.quantizers.base import (
    NEGLIGIBLE,
    KernelQuantizer,
    clipped,
    filter_size,
    mean_magnitude,
    sign,
    standardize,
    times,
)
from kbnn.quantizers.registry import register


@tf.custom_gradient
def _clipped_sign(x: tf.Tensor) -> tf.Tensor:
    """sign(x); its gradient is dy on abs(x) <= 1, else 0."""
    return sign(x), lambda dy: clipped(x, dy)


def through_standardization(w: tf.Tensor) -> tf.Tensor:
    """sign(Ŵ), Ŵ = (W - mean)/std per filter; its gradient is clipped to abs(Ŵ) <= 1, then standardized."""
    return tf.cast(_clipped_sign(standardize(w)), w.dtype)


@tf.custom_gradient
def by_xnor_rule(w: tf.Tensor) -> tf.Tensor:
    """sign(Ŵ); its gradient is `xnor_gradient`."""
    return tf.cast(sign(standardize(w)), w.dtype), lambda dy: xnor_gradient(w, dy)


def xnor_gradient(w: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """dy·(1/(n·α) + 1[abs(W) <= 1]), α = mean(abs(W)) per filter.

    For a layer that multiplies by α, dy contains α, and this is XNOR-Net's dL/d(α·q)·(1/n + α·1[abs(W) <= 1]).
    """
    alpha = mean_magnitude(w)
    # A filter of zeros receives no gradient anyway.
    share = tf.where(alpha > NEGLIGIBLE, 1.0 / filter_size(w) / tf.maximum(alpha, NEGLIGIBLE), 0.0)
    return times(dy, share + tf.cast(tf.abs(w) <= 1, tf.float32))


GRADIENTS = {"ste": through_standardization, "xnor": by_xnor_rule}


@register("standardized", kind="kernel", presets={"standardized_xnor": {"gradient": "xnor"}})
class StandardizedSign(KernelQuantizer):
    """The signs of a kernel that is standardized per filter: as many +1 as -1 if its weights are symmetric.

    Forward: q(W) = sign(Ŵ), Ŵ = (W - mean(W))/std(W).
    Gradient: "ste": dL/dŴ = dL/dq·1[abs(Ŵ) <= 1], then through mean and deviation.
    "xnor": dL/dW = dL/dq·(1/(n·α) + 1[abs(W) <= 1]), α = mean(abs(W)) per filter, n weights in each. In a layer with
    scale="mean_abs", this is XNOR-Net's gradient of the scaled kernel, dL/d(α·q)·(1/n + α·1[abs(W) <= 1]).

    Args:
        gradient: "ste" or "xnor".

    Raises:
        UsageError: an unknown gradient, or the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="standardized", scale="mean_abs")

    Source: ML+BMA, algorithm 1, steps 1 and 4.
    Deviates from the paper: the default is "ste"; the paper's gradient is "xnor", which ignores the standardization.
    """

    def __init__(self, gradient: str = "ste", **kwargs: object) -> None:
        super().__init__(**kwargs)
        if gradient not in GRADIENTS:
            raise unknown("gradient of StandardizedSign", gradient, GRADIENTS)
        self.gradient = gradient

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return GRADIENTS[self.gradient](inputs)

    def get_config(self) -> Config:
        return {**super().get_config(), "gradient": self.gradient}
