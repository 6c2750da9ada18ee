"""IR-Net's kernel binarizer, Libra."""

import tensorflow as tf

from kbnn.quantizers.base import mean_magnitude, standardize
from kbnn.quantizers.estimators import EstimatedKernel
from kbnn.quantizers.registry import register


def power_of_two_scale(standardized: tf.Tensor) -> tf.Tensor:
    """2^round(log2(mean(abs(Ŵ)))) per filter; 1 for a filter of zeros. Passes no gradient."""
    mean = mean_magnitude(standardized)
    exponent = tf.round(tf.math.log(tf.where(mean > 0, mean, 1.0)) / tf.math.log(2.0))
    return tf.stop_gradient(tf.pow(2.0, exponent))


@register("libra", kind="kernel")
class LibraSign(EstimatedKernel):
    """IR-Net's kernels: signs of the kernel standardized per filter, scaled by a power of two.

    Forward: Ŵ = (W - mean(W))/std(W) with the unbiased deviation (n - 1), q(W) = sign(Ŵ)·2^s,
    s = round(log2(mean(abs(Ŵ)))).
    Gradient: dL/dŴ = dL/dq·2^s·(the surrogate at Ŵ), then through mean and deviation; 2^s passes no gradient.

    Args:
        gradient: the surrogate at Ŵ: a name such as "ste" or "ede", or a quantizer.

    Raises:
        UsageError: an unknown gradient, or the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer=kbnn.quantizers.LibraSign(gradient="ede"))

    Source: Qin et al., IR-Net, 2020, equations 7 to 12.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        standardized = standardize(inputs, lost_degrees=1)
        scale = power_of_two_scale(standardized)
        return tf.cast(self.estimator.call(standardized) * scale, inputs.dtype)
