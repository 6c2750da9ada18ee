"""DoReFa-Net's 1-bit kernel binarizer."""

import tensorflow as tf

from kbnn.quantizers.base import KernelQuantizer, ScaleScope, mean_magnitude, sign
from kbnn.quantizers.registry import register


@tf.custom_gradient
def dorefa_sign(w: tf.Tensor) -> tf.Tensor:
    """α·sign(W), α = mean(abs(W)) over the whole layer; its gradient is dy."""
    alpha = mean_magnitude(tf.reshape(w, [-1, 1]))
    return tf.cast(alpha, w.dtype) * sign(w), lambda dy: dy


@register("dorefa", kind="kernel")
class DoReFaSign(KernelQuantizer):
    """DoReFa-Net's kernels at 1 bit: the sign, scaled by the layer's mean magnitude.

    Forward: q(W) = α·sign(W), α = mean(abs(W)) over all weights of the layer.
    Gradient: dL/dW = dL/dq.

    Raises:
        UsageError: the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="ste", kernel_quantizer="dorefa")

    Source: Zhou et al., DoReFa-Net, 2016, equation 8.
    """

    scale_scope: ScaleScope = "layer"

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return dorefa_sign(inputs)
