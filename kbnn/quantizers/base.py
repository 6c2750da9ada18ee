"""What the quantizers share: the sign of this library, statistics of filters, and two base classes."""

from collections.abc import Callable
from typing import Any

import larq as lq
import tensorflow as tf

from kbnn.compiled import compiled, narrow, partial_sums, widen
from kbnn.constraints import Positive
from kbnn.errors import UsageError

# Weights below this count as zero, and a filter whose relative variance is below that as one of equal weights:
# nothing but the rounding of its mean is left.
_NEGLIGIBLE = 1e-30
_FLAT_VARIANCE = 2.0**-40
# exp(-80) is the smallest exponential that is taken: no formula here can overflow or divide by zero by it.
LARGEST_EXPONENT = 80.0


def sign(x: tf.Tensor) -> tf.Tensor:
    """+1 where x >= 0 (-0.0 too), else -1: the form that the LCE converter recognises."""
    one = tf.constant(1.0, x.dtype)
    return tf.where(x >= 0, one, -one)


def surrogate_sign(x: tf.Tensor, gradient: Callable[..., tf.Tensor], *parameters: Any) -> tf.Tensor:
    """sign(x), whose gradient is gradient(x, dy, *parameters)."""

    @tf.custom_gradient
    def binarize(x: tf.Tensor) -> tf.Tensor:
        return sign(x), lambda dy: gradient(x, dy, *parameters)

    return binarize(x)


def times(dy: tf.Tensor, derivative: tf.Tensor) -> tf.Tensor:
    """dy·derivative, multiplied in float32, in the dtype of dy."""
    return narrow(widen(dy) * derivative, dy.dtype)


def sech_squared(x: tf.Tensor) -> tf.Tensor:
    """1 - tanh²(x) = 4e/(1 + e)², e = exp(-2·abs(x)), without the cancellation."""
    e = tf.exp(-tf.minimum(tf.abs(2 * x), LARGEST_EXPONENT))
    return 4 * e / tf.square(1 + e)


def clipped(x: tf.Tensor, dy: tf.Tensor, clip_value: float = 1.0) -> tf.Tensor:
    """The straight-through gradient: dy on abs(x) <= clip_value, else 0."""
    # The other way round, XLA reads dy under a mask, which takes twice as long.
    return tf.where(tf.abs(x) > clip_value, tf.zeros_like(dy), dy)


def filter_axes(w: tf.Tensor) -> list[int]:
    """The axes that one filter spans: all but the last."""
    return list(range(len(w.shape) - 1))


def filter_size(w: tf.Tensor) -> int:
    """n, the number of weights of one filter."""
    return w.shape[:-1].num_elements()


def mean_magnitude(w: tf.Tensor) -> tf.Tensor:
    """mean(abs(W)) per filter, in float32, shape `(Cout,)`; finite for every finite kernel."""
    magnitude = tf.abs(tf.cast(w, tf.float32))
    axes = filter_axes(w)
    # Divided before it is summed, and held under the largest: the sum of huge weights would overflow.
    mean = tf.reduce_sum(magnitude * (1.0 / filter_size(w)), axes)
    return tf.minimum(mean, tf.reduce_max(magnitude, axes))


def power_of_two(x: tf.Tensor) -> tf.Tensor:
    """The largest power of two that is not above positive float32 `x`; 1 for what is as good as zero."""
    exponent = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), 0x7F800000), tf.float32)
    return tf.where(x > _NEGLIGIBLE, exponent, 1.0)


def standardize(w: tf.Tensor, lost_degrees: int = 0, epsilon: float = 0.0) -> tf.Tensor:
    """Ŵ = (W - mean(W))/√(Σ(W - mean(W))²/(n - lost_degrees) + epsilon) per filter, in float32.

    With r = 1/√(...) of a filter, dL/dW = r·(dL/dŴ - mean(dL/dŴ) - Ŵ·Σ(Ŵ·dL/dŴ)/(n - lost_degrees)).

    A filter whose weights are all equal has no direction: without an epsilon it gives zeros, and lets the gradient
    pass unscaled.
    """
    count = max(filter_size(w) - lost_degrees, 1)

    @tf.custom_gradient
    def standardized(w: tf.Tensor) -> tf.Tensor:
        outputs, inverse, is_flat = _standardized(w, count, epsilon)

        def gradient(dy: tf.Tensor) -> tf.Tensor:
            return _through_standardization(outputs, dy, inverse, is_flat, count, epsilon)

        return outputs, gradient

    return standardized(tf.cast(w, tf.float32))


@compiled
def _standardized(w: tf.Tensor, count: int, epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Ŵ, r per filter, and where the deviation is that of rounding."""
    columns = tf.reshape(w, [-1, w.shape[-1]])
    # Divided by a power of two near the largest weight, which is exact, so that no square overflows or vanishes.
    largest = tf.reduce_max(partial_sums(tf.abs, columns, add=tf.maximum), 0)
    unit = power_of_two(tf.maximum(largest, tf.sqrt(epsilon)))
    mean = tf.reduce_sum(partial_sums(lambda x: x / unit, columns), 0) / filter_size(w)
    variance = tf.reduce_sum(partial_sums(lambda x: tf.square(x / unit - mean), columns), 0) / count
    if epsilon:
        # For equal huge weights, epsilon vanishes beside their square.
        variance = variance + tf.square(tf.sqrt(epsilon) / unit)
        is_flat = variance < _FLAT_VARIANCE**2
        deviation = tf.sqrt(tf.maximum(variance, _FLAT_VARIANCE**2))
        return (w / unit - mean) / deviation, 1 / deviation / unit, is_flat
    is_flat = (largest <= _NEGLIGIBLE) | (variance < _FLAT_VARIANCE)
    deviation = tf.sqrt(tf.where(is_flat, 1.0, variance))
    return tf.where(is_flat, 0.0, (w / unit - mean) / deviation), 1 / deviation / unit, is_flat


@compiled
def _through_standardization(
    y: tf.Tensor, dy: tf.Tensor, inverse: tf.Tensor, is_flat: tf.Tensor, count: int, epsilon: float
) -> tf.Tensor:
    sums = partial_sums(lambda y, dy: (dy, y * dy), y, dy)
    mean, projection = tf.reduce_sum(sums[0], 0) / filter_size(y), tf.reduce_sum(sums[1], 0) / count
    if epsilon:
        return (dy - mean - y * tf.where(is_flat, 0.0, projection)) * inverse
    return tf.where(is_flat, dy, (dy - mean - y * projection) * inverse)


class Estimator(lq.quantizers.Quantizer):
    """A sign of activations or kernels with a surrogate gradient, element by element.

    A subclass says what the gradient is, as `surrogate` and `parameters`, for layers that compile it with their own.
    """

    precision = 1

    def _add_parameter(self, name: str, value: float, trainable: bool = False) -> tf.Variable:
        """A positive scalar, in float32 whatever the policy."""
        return self.add_weight(
            name=name,
            shape=(),
            dtype=tf.float32,
            initializer=tf.keras.initializers.Constant(value),
            trainable=trainable,
            constraint=Positive(1e-3) if trainable else None,
            experimental_autocast=False,
        )

    @staticmethod
    def surrogate(x: tf.Tensor, dy: tf.Tensor, *parameters: Any) -> tf.Tensor:
        """dL/dx, given dL/dsign(x): a function of these only."""
        raise NotImplementedError

    def parameters(self) -> tuple[Any, ...]:
        """What `surrogate` depends on beside x and dy: numbers, or variables' values."""
        return ()

    def parameter_gradients(self, x: tf.Tensor, dx: tf.Tensor) -> list[tf.Tensor]:
        """The gradients of the trainable variables, given dL/dx."""
        return []

    def gradient(self, x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
        """dL/dx, given dL/dsign(x)."""
        return self.surrogate(x, dy, *self.parameters())


class KernelQuantizer(lq.quantizers.Quantizer):
    """A quantizer whose result depends on the filter a weight belongs to, so that it takes kernels only.

    Raises:
        UsageError: on build, when it is given activations (a shape with an unknown batch size).
    """

    precision = 1

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank is None or shape.rank < 2 or not shape.is_fully_defined():
            raise UsageError(
                f"{type(self).__name__} binarizes kernels, of a known shape (..., inputs, outputs): received {shape}; "
                f"pass it as kernel_quantizer, and an activation's sign such as 'ste_sign' as input_quantizer"
            )
        super().build(input_shape)
