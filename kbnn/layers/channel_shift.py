"""A learned threshold per channel before the sign."""

import tensorflow as tf

from kbnn.compiled import channel_sums, compiled, narrow, widen
from kbnn.layers.channels import add_float32_weight, known_channels
from kbnn.layers.rematerialization import attach


@compiled
def _shift(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    return narrow(widen(x) + bias, x.dtype)


@tf.custom_gradient
def channel_shift(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """x + b_c, with a float32 bias; dL/dx = dy, dL/db_c = Σ dy over the channel."""
    return _shift(x, bias), lambda dy: (dy, channel_sums(dy))


@tf.keras.utils.register_keras_serializable(package="kbnn")
class ChannelShift(tf.keras.layers.Layer):
    """Adds a learned constant to each channel: `(B, ..., C)` to the same shape. Followed by a sign, ReActNet's RSign.

    y = x + b_c, so that sign(y) is the threshold x >= -b_c; b starts at 0.

    Raises:
        UsageError: an unknown number of channels.

    Example:
        >>> kbnn.layers.ChannelShift()(tf.zeros((1, 8, 8, 64)))

    Source: Liu et al., ReActNet, 2020, equation 1; PresB-Net, section on learnable activations.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        self.bias = add_float32_weight(self, "bias", (known_channels(self, input_shape),), "zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        bias = tf.convert_to_tensor(self.bias)
        return attach(channel_shift(inputs, bias), _shift, inputs, bias)
