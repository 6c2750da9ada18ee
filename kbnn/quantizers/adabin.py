"""AdaBin's binarizers: two learned values for activations, two per filter for kernels."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import compiled, partial_sums, total, widen
from kbnn.errors import UsageError
from kbnn.quantizers.base import Estimator, Gradient, filter_axes, filter_size, standardize, times
from kbnn.quantizers.estimators import EstimatedKernel
from kbnn.quantizers.registry import register


def adaptive_sign(x: tf.Tensor, alpha: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """+1 where x >= β, else -1, in the dtype of x."""
    one = tf.constant(1.0, x.dtype)
    return tf.where(widen(x) - beta >= 0, one, -one)


def gradient(x: tf.Tensor, dy: tf.Tensor, alpha: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """dy·(2 - 2·abs(u))/α on abs(u) <= 1, else 0, u = (x - β)/α."""
    return times(dy, tf.maximum(2 - 2 * tf.abs((widen(x) - beta) / alpha), 0.0) / alpha)


@compiled
def _parameter_sums(x: tf.Tensor, dx: tf.Tensor, alpha: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """Partial sums of dx·u and of dx; dx is zero where abs(u) > 1."""

    def terms(x: tf.Tensor, dx: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        u, dx = (widen(x) - beta) / alpha, widen(dx)
        return dx * tf.clip_by_value(u, -1.0, 1.0), dx

    return partial_sums(terms, x, dx)


def parameter_gradients(x: tf.Tensor, dx: tf.Tensor, alpha: tf.Tensor, beta: tf.Tensor) -> list[tf.Tensor]:
    """dL/dα = -Σ dx·u and dL/dβ = -Σ dx: the part of the gradients that passes the sign."""
    return tf.unstack(-tf.reduce_sum(total(_parameter_sums(x, dx, alpha, beta)), -1))


@register("adaptive")
class AdaptiveSign(Estimator):
    """AdaBin's activations: signs around a learned centre that stand for two learned values.

    Forward: q(x) = +1 where x >= β, else -1; the layer computes with A_b = β + α·q(x).
    Gradient: with u = (x - β)/α and g(u) = 2 - 2·abs(u) on abs(u) <= 1, else 0: dA_b/dx = g(u), dA_b/dβ = 1 - g(u),
    dA_b/dα = q(x) - g(u)·u.

    Once the layer is built, `alpha` and `beta` are variables, one scalar each per quantizer. They start at 1 and 0, and
    α stays positive. A binary layer computes A_b ∗ W = α·(q(x) ∗ W) + β·ΣW, so the values cost only a scale and an
    offset per filter. Signs are padded with +1, which stands for β + α. Anywhere else, such as in Larq's layers or on
    kernels, the quantizer is q alone, a sign with a learned threshold and the gradients of q((x - β)/α).

    Args:
        alpha: initial half distance of the two values, positive.
        beta: initial centre.

    Raises:
        UsageError: alpha is not positive.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer=kbnn.quantizers.AdaptiveSign())

    Source: Tu et al., AdaBin, 2022, "Gradient-based activation binarization".
    Deviates from the authors' code, whose values for CIFAR-10 are α·(β ± 1), and which pads with zeros, a third value.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 0.0, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if not alpha > 0:
            raise UsageError(f"AdaptiveSign: alpha must be positive, received {alpha}")
        self.alpha = self._initial_alpha = alpha
        self.beta = self._initial_beta = beta

    def build(self, input_shape: tf.TensorShape) -> None:
        self.alpha = self._add_parameter("alpha", self._initial_alpha, trainable=True)
        self.beta = self._add_parameter("beta", self._initial_beta, trainable=True, positive=False)
        super().build(input_shape)

    binarize = staticmethod(adaptive_sign)
    surrogate = staticmethod(gradient)

    def parameters(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.alpha), tf.convert_to_tensor(self.beta)

    def parameter_gradients(self, x: tf.Tensor, dx: tf.Tensor) -> list[tf.Tensor]:
        return parameter_gradients(x, dx, *self.parameters())

    def values(self) -> tuple[tf.Tensor, tf.Tensor]:
        return self.parameters()

    def get_config(self) -> Config:
        return {**super().get_config(), "alpha": self._initial_alpha, "beta": self._initial_beta}


@register("equalized", kind="kernel", levels=None)
class EqualizedSign(EstimatedKernel):
    """AdaBin's kernels: two values per filter, its mean plus and minus its standard deviation.

    Forward: Ŵ = (W - β)/α, q(W) = β + α·sign(Ŵ), β = mean(W), α = √(Σ(W - β)²/n) per filter.
    Gradient: that of the formula, with the surrogate at Ŵ for the sign; it also flows through mean and deviation.

    Args:
        gradient: the surrogate at Ŵ, a name such as "ste" or "ede", or a quantizer.

    Raises:
        UsageError: an unknown gradient, or the input is activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer=kbnn.quantizers.EqualizedSign(gradient="ede"))

    Source: Tu et al., AdaBin, 2022, "Weight equalization".
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        w = tf.cast(inputs, tf.float32)
        mean, deviation = _mean_and_deviation(w)
        return tf.cast(mean + deviation * self.estimator.call(standardize(w)), inputs.dtype)


@tf.custom_gradient
def _mean_and_deviation(w: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Gradient]:
    """Mean and deviation per filter; their gradients are 1/n and Ŵ/n, zero for a filter of equal weights."""
    mean, deviation = _statistics(w)
    return (mean, deviation), lambda dmean, ddeviation: _statistics_gradient(w, mean, deviation, dmean, ddeviation)


@compiled
def _statistics(w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    axes, share = filter_axes(w), 1.0 / filter_size(w)
    mean = tf.reduce_sum(w * share, axes)
    # Divided by the largest magnitude, so that no square overflows or vanishes.
    largest = tf.reduce_max(tf.abs(w - mean), axes)
    unit = tf.where(largest > 0, largest, 1.0)
    return mean, unit * tf.sqrt(tf.reduce_sum(tf.square((w - mean) / unit) * share, axes))


@compiled
def _statistics_gradient(
    w: tf.Tensor, mean: tf.Tensor, deviation: tf.Tensor, dmean: tf.Tensor, ddeviation: tf.Tensor
) -> tf.Tensor:
    standardized = tf.where(deviation > 0, (w - mean) / tf.where(deviation > 0, deviation, 1.0), 0.0)
    return (dmean + ddeviation * standardized) * (1.0 / filter_size(w))
