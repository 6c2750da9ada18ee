"""Parametric ReLUs with one or two learned slopes per channel."""

import tensorflow as tf

from kbnn.compiled import compiled, narrow, partial_sums, total, widen
from kbnn.layers.channels import add_float32_weight, known_channels, parametric_relu


@compiled
def _prelu(x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    return narrow(parametric_relu(widen(x), slope), x.dtype)


@compiled
def _prelu_gradients(x: tf.Tensor, dy: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """dL/dx, and partial sums of dy·min(x, 0)."""
    dx = tf.where(widen(x) > 0, widen(dy), slope * widen(dy))
    return narrow(dx, dy.dtype), partial_sums(lambda x, dy: widen(dy) * tf.minimum(widen(x), 0.0), x, dy)


@tf.custom_gradient
def prelu(x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """x where x > 0, else slope_c·x; in float32 per channel."""

    def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dx, sums = _prelu_gradients(x, dy, slope)
        return dx, total(sums)

    return _prelu(x, slope), gradients


@compiled
def _maxout(x: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tf.Tensor:
    return narrow(positive * tf.nn.relu(widen(x)) - negative * tf.nn.relu(-widen(x)), x.dtype)


@compiled
def _maxout_gradients(
    x: tf.Tensor, dy: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """dL/dx, and partial sums of dy·max(x, 0) and dy·min(x, 0)."""

    def terms(x: tf.Tensor, dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x, dy = widen(x), widen(dy)
        return dy * tf.maximum(x, 0.0), dy * tf.minimum(x, 0.0)

    dx = tf.where(widen(x) > 0, positive, negative) * widen(dy)
    return narrow(dx, dy.dtype), partial_sums(terms, x, dy)


@tf.custom_gradient
def maxout(x: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tf.Tensor:
    """positive_c·x where x > 0, else negative_c·x; in float32 per channel."""

    def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        dx, sums = _maxout_gradients(x, dy, positive, negative)
        dpositive, dnegative = tf.unstack(total(sums))
        return dx, dpositive, dnegative

    return _maxout(x, positive, negative), gradients


@tf.keras.utils.register_keras_serializable(package="kbnn")
class PReLU(tf.keras.layers.Layer):
    """A parametric ReLU with one slope per channel, `(B, ..., C)` to the same shape.

    y = x where x > 0, else slope_c·x; the slope starts at 0.25. The same as `tf.keras.layers.PReLU` with
    `shared_axes` over height and width, in fewer passes over memory.

    Raises:
        UsageError: an unknown number of channels.

    Example:
        >>> kbnn.layers.PReLU()(tf.zeros((1, 8, 8, 64)))

    Source: He et al., Delving deep into rectifiers, 2015, equation 1.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = (known_channels(self, input_shape),)
        self.slope = add_float32_weight(self, "slope", shape, _start(0.25))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return prelu(inputs, tf.convert_to_tensor(self.slope))


@tf.keras.utils.register_keras_serializable(package="kbnn")
class Maxout(tf.keras.layers.Layer):
    """AdaBin's activation: a parametric ReLU with two slopes per channel, `(B, ..., C)` to the same shape.

    y = γ⁺_c·x where x > 0, else γ⁻_c·x; γ⁺ starts at 1, γ⁻ at 0.25.

    Raises:
        UsageError: an unknown number of channels.

    Example:
        >>> kbnn.layers.Maxout()(tf.zeros((1, 8, 8, 64)))

    Source: Tu et al., AdaBin, 2022, "Non-linearity", and the authors' code.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = (known_channels(self, input_shape),)
        self.positive = add_float32_weight(self, "positive", shape, "ones")
        self.negative = add_float32_weight(self, "negative", shape, _start(0.25))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return maxout(inputs, tf.convert_to_tensor(self.positive), tf.convert_to_tensor(self.negative))


def _start(value: float) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.Constant(value)
