"""XNOR-Net's kernel binarizer."""

import tensorflow as tf

from kbnn.quantizers.base import KernelQuantizer, ScaleScope, filter_size, mean_magnitude, sign
from kbnn.quantizers.registry import register


def gradient(w: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """dy·(1/n + α·1[abs(W) <= 1]), α = mean(abs(W)) per filter."""
    alpha = tf.cast(mean_magnitude(w), dy.dtype)
    inside = tf.cast(tf.abs(w) <= 1, dy.dtype)
    return dy * (1.0 / filter_size(w) + alpha * inside)


@tf.custom_gradient
def xnor_sign(w: tf.Tensor) -> tf.Tensor:
    """α·sign(W), α = mean(abs(W)) per filter; its gradient is `gradient`."""
    return tf.cast(mean_magnitude(w), w.dtype) * sign(w), lambda dy: gradient(w, dy)


@register("xnor", kind="kernel")
class XNORSign(KernelQuantizer):
    """XNOR-Net's kernels: the sign, scaled by each filter's mean magnitude.

    Forward: q(W) = α·sign(W), α = mean(abs(W)) per filter.
    Gradient: dL/dW = dL/dq·(1/n + α·1[abs(W) <= 1]), n weights per filter.

    Raises:
        UsageError: the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="ste", kernel_quantizer="xnor")

    Source: Rastegari et al., XNOR-Net, 2016, equation 6 and section 3.1.
    """

    scale_scope: ScaleScope = "filter"

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return xnor_sign(inputs)
