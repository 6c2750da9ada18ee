"""Base classes of quantizers, the sign, and statistics of filters."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

import larq as lq
import tensorflow as tf

from kbnn.compiled import compiled, narrow, partial_sums, widen
from kbnn.constraints import Positive
from kbnn.errors import UsageError
from kbnn.quantizers.registry import SIGNS, Kind

# One scale per filter, or one for the whole layer.
ScaleScope = Literal["filter", "layer"]
# Maps a latent kernel to the one that replaces it after an update.
Constraint = Callable[[tf.Variable], tf.Tensor]
# (x, dL/dq(x), *parameters) -> dL/dx.
Gradient = Callable[..., tf.Tensor]
# The further arguments of a quantizer's functions: numbers, tensors, or None.
Parameters = tuple[object, ...]

# Weights below this count as zero.
NEGLIGIBLE = 1e-30
# Filters of smaller relative variance count as constant: such a variance comes from rounding the mean.
_FLAT_VARIANCE = 2.0**-40
# Exponents are clipped at -80, so that no formula here overflows or divides by zero.
LARGEST_EXPONENT = 80.0


def sign(x: tf.Tensor) -> tf.Tensor:
    """+1 where x >= 0 (-0.0 too), else -1, in the form that the LCE converter recognizes."""
    one = tf.constant(1.0, x.dtype)
    return tf.where(x >= 0, one, -one)


def times(dy: tf.Tensor, derivative: tf.Tensor) -> tf.Tensor:
    """dy·derivative, computed in float32 and returned in the dtype of dy."""
    return narrow(widen(dy) * derivative, dy.dtype)


def sech_squared(x: tf.Tensor) -> tf.Tensor:
    """1 - tanh²(x) = 4e/(1 + e)², e = exp(-2·abs(x)), without the cancellation."""
    e = tf.exp(-tf.minimum(tf.abs(2 * x), LARGEST_EXPONENT))
    return 4 * e / tf.square(1 + e)


def clipped(x: tf.Tensor, dy: tf.Tensor, clip_value: float | None = 1.0) -> tf.Tensor:
    """The straight-through gradient: dy on abs(x) <= clip_value, else 0; dy everywhere if clip_value is None."""
    if clip_value is None:
        return dy
    # With the branches swapped, XLA would read dy under a mask, which takes twice as long.
    return tf.where(tf.abs(x) > clip_value, tf.zeros_like(dy), dy)


def filter_axes(w: tf.Tensor) -> list[int]:
    """The axes of one filter: all but the last."""
    return list(range(len(w.shape) - 1))


def filter_size(w: tf.Tensor) -> int:
    """n, the number of weights of one filter."""
    return w.shape[:-1].num_elements()


def mean_magnitude(w: tf.Tensor) -> tf.Tensor:
    """mean(abs(W)) per filter, in float32, shape `(Cout,)`; finite for every finite kernel."""
    magnitude = tf.abs(tf.cast(w, tf.float32))
    axes = filter_axes(w)
    # Divided before it is summed, and at most the largest: the sum of huge weights would overflow.
    mean = tf.reduce_sum(magnitude * (1.0 / filter_size(w)), axes)
    return tf.minimum(mean, tf.reduce_max(magnitude, axes))


def power_of_two(x: tf.Tensor) -> tf.Tensor:
    """The largest power of two that is at most positive float32 `x`; 1 where `x` is negligible."""
    exponent = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), 0x7F800000), tf.float32)
    return tf.where(x > NEGLIGIBLE, exponent, 1.0)


def standardize(w: tf.Tensor, lost_degrees: int = 0, epsilon: float = 0.0) -> tf.Tensor:
    """Ŵ = (W - mean(W))/√(Σ(W - mean(W))²/(n - lost_degrees) + epsilon) per filter, in float32.

    With r = 1/√(...) of a filter, dL/dW = r·(dL/dŴ - mean(dL/dŴ) - Ŵ·Σ(Ŵ·dL/dŴ)/(n - lost_degrees)).

    A filter of equal weights cannot be standardized: without an epsilon, its result is zeros, and its gradient passes
    unscaled.
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
    """Ŵ, r per filter, and a mask of the filters that are constant up to rounding."""
    columns = tf.reshape(w, [-1, w.shape[-1]])
    # Dividing by a power of two near the largest weight is exact, and keeps squares from overflowing or vanishing.
    largest = tf.reduce_max(partial_sums(tf.abs, columns, add=tf.maximum), 0)
    unit = power_of_two(tf.maximum(largest, tf.sqrt(epsilon)))
    mean = tf.reduce_sum(partial_sums(lambda x: x / unit, columns), 0) / filter_size(w)
    variance = tf.reduce_sum(partial_sums(lambda x: tf.square(x / unit - mean), columns), 0) / count
    if epsilon:
        # For huge equal weights, epsilon is negligible against their square.
        variance = variance + tf.square(tf.sqrt(epsilon) / unit)
        is_flat = variance < _FLAT_VARIANCE**2
        deviation = tf.sqrt(tf.maximum(variance, _FLAT_VARIANCE**2))
        return (w / unit - mean) / deviation, 1 / deviation / unit, is_flat
    is_flat = (largest <= NEGLIGIBLE) | (variance < _FLAT_VARIANCE)
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
    """The elementwise sign with a surrogate gradient, for activations and kernels.

    Forward: q(x) = +1 where x >= 0, else -1; if other `levels` are declared, the upper and the lower one of these.
    Gradient: `surrogate`.

    A subclass defines `surrogate`, and nothing else if its gradient has no parameters. Layers compile it together with
    their own training step. If a subclass overrides `call`, layers differentiate that `call` instead.

    Example:
        >>> @kbnn.quantizers.register("cubic")
        ... class CubicSign(kbnn.quantizers.Estimator):
        ...     @staticmethod
        ...     def surrogate(x, dy):
        ...         return dy * tf.maximum(1 - tf.abs(x) ** 3, 0)
    """

    precision = 1
    kind: Kind = "activation"
    levels: tuple[float, ...] | None = SIGNS

    def _add_parameter(self, name: str, value: float, trainable: bool = False, positive: bool = True) -> tf.Variable:
        """Adds a scalar, float32 under every policy; if trained, it stays positive unless `positive` is False."""
        return self.add_weight(
            name=name,
            shape=(),
            dtype=tf.float32,
            initializer=tf.keras.initializers.Constant(value),
            trainable=trainable,
            constraint=Positive(1e-3) if trainable and positive else None,
            experimental_autocast=False,
        )

    @staticmethod
    def binarize(x: tf.Tensor, *parameters: Any) -> tf.Tensor:
        """+1 or -1 for each element of x: a function of x and `parameters` only."""
        return sign(x)

    @staticmethod
    def surrogate(x: tf.Tensor, dy: tf.Tensor, *parameters: Any) -> tf.Tensor:
        """dL/dx, given dL/dq(x): a function of x, dy and `parameters` only."""
        raise NotImplementedError("an Estimator defines surrogate(x, dy, *parameters)")

    def values(self) -> tuple[tf.Tensor, tf.Tensor] | None:
        """(α, β) if the signs s stand for the values β + α·s, which layers then multiply with; None for ±1."""
        return None

    def parameters(self) -> Parameters:
        """The further arguments of `binarize` and `surrogate`: numbers, or the values of variables."""
        return ()

    def parameter_gradients(self, x: tf.Tensor, dx: tf.Tensor) -> list[tf.Tensor]:
        """The gradients of the trainable variables, given dL/dx."""
        return []

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        gradient, arguments = surrogate_of(self)
        parameters = self.parameters()
        # Passed in as tensors: a function with a custom gradient differentiates only with respect to its arguments.
        trained = [tf.convert_to_tensor(variable) for variable in self.trainable_variables]

        @tf.custom_gradient
        def binarize(x: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
            def gradients(dy: tf.Tensor) -> list[tf.Tensor]:
                dx = _through(gradient, x, dy, arguments)
                return [dx, *(self.parameter_gradients(x, dx) if trained else [])]

            return self._in_levels(self.binarize(x, *parameters)), gradients

        return binarize(inputs, *trained)

    def _in_levels(self, signs: tf.Tensor) -> tf.Tensor:
        levels = SIGNS if self.levels is None else self.levels
        if len(levels) != 2:
            raise UsageError(
                f"{type(self).__name__} has two levels unless it overrides call: received levels={tuple(levels)}"
            )
        lower, upper = (tf.constant(level, signs.dtype) for level in levels)
        return signs if tuple(levels) == SIGNS else tf.where(signs > 0, upper, lower)


@compiled
def _through(gradient: Gradient, x: tf.Tensor, dy: tf.Tensor, parameters: Parameters) -> tf.Tensor:
    return gradient(x, dy, *parameters)


def surrogate_of(quantizer: Estimator) -> tuple[Gradient, Parameters]:
    """An estimator's surrogate gradient as a function (x, dy, *parameters), and these parameters.

    The function is the same object for all estimators of a class, so that it is compiled once.
    """
    declared = inspect.getattr_static(type(quantizer), "surrogate")
    if isinstance(declared, staticmethod | classmethod):
        return quantizer.surrogate, quantizer.parameters()
    return _of_method(declared), (quantizer, *quantizer.parameters())


@functools.cache
def _of_method(surrogate: Callable[..., tf.Tensor]) -> Gradient:
    """Turns a surrogate that is an ordinary method into a function that takes the quantizer after x and dy."""
    return lambda x, dy, quantizer, *parameters: surrogate(quantizer, x, dy, *parameters)


class KernelQuantizer(lq.quantizers.Quantizer):
    """A quantizer for kernels only, because its result for a weight depends on the whole filter.

    A subclass defines `call`, which maps a latent kernel `(..., Cin, Cout)` to the binary one of the same shape. The
    last axis numbers the filters; of the depthwise kernels `(h, w, C, multiplier)` of Larq's layers, all channels count
    as one filter.

    Raises:
        UsageError: on build, if the input is activations (a shape with an unknown batch size).
    """

    precision = 1
    kind: Kind = "kernel"
    # The scope of the mean(abs(W)) that multiplies the signs, if the quantizer has such a scale.
    scale_scope: ScaleScope | None = None

    def constraint(self) -> Constraint | None:
        """A constraint to apply to the latent kernel after each update, before the layer's own; None for no change."""
        return None

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank is None or shape.rank < 2 or not shape.is_fully_defined():
            raise UsageError(
                f"{type(self).__name__} binarizes kernels, of a known shape (..., inputs, outputs): received {shape}; "
                f"pass it as kernel_quantizer, and one for activations such as 'ste' as input_quantizer"
            )
        super().build(input_shape)
