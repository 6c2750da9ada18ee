"""Bi-Real Net's kernel binarizer."""

import larq as lq
import tensorflow as tf

from kbnn.quantizers.base import KernelQuantizer, clipped, mean_magnitude, sign


def gradient(w: tf.Tensor, dy: tf.Tensor, clip_value: float = 1.0) -> tf.Tensor:
    """dy·α·1[abs(W) <= clip_value], α = mean(abs(W)) per filter, a constant."""
    return clipped(w, dy * tf.cast(mean_magnitude(w), dy.dtype), clip_value)


def magnitude_aware_sign(w: tf.Tensor, clip_value: float = 1.0) -> tf.Tensor:
    """α·sign(W), α = mean(abs(W)) per filter; its gradient is `gradient`."""

    @tf.custom_gradient
    def binarize(w: tf.Tensor) -> tf.Tensor:
        return tf.cast(mean_magnitude(w), w.dtype) * sign(w), lambda dy: gradient(w, dy, clip_value)

    return binarize(w)


@tf.keras.utils.register_keras_serializable(package="kbnn")
class MagnitudeAwareSign(KernelQuantizer, lq.quantizers.MagnitudeAwareSign):
    """Bi-Real Net's kernels: the sign, scaled by each filter's mean magnitude, which is a constant for the gradient.

    Forward: q(W) = α·sign(W), α = mean(abs(W)) per filter.
    Gradient: dL/dW = dL/dq·α·1[abs(W) <= clip_value].

    Larq's class of this name takes the mean in the kernel's own precision; here it is float32 and cannot overflow.

    Raises:
        UsageError: it is given activations.

    Example:
        >>> kernel_quantizer = kbnn.quantizers.MagnitudeAwareSign()
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer=kernel_quantizer)

    Source: Liu et al., Bi-Real Net, 2018, equations 6 and 7.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return magnitude_aware_sign(inputs, self.clip_value)
