"""ReActNet's activation."""

import tensorflow as tf

from kbnn.layers.biased_prelu import rprelu
from kbnn.layers.channels import add_float32_weight, known_channels


@tf.keras.utils.register_keras_serializable(package="kbnn")
class RPReLU(tf.keras.layers.Layer):
    """PReLU(x - γ_c) + ζ_c, a parametric ReLU with learned shifts of input and output: `(B, ..., C)` to the same shape.

    y = (u where u > 0, else slope_c·u) + ζ_c, with u = x - γ_c; γ and ζ start at 0, the slope at 0.25.

    Raises:
        UsageError: an unknown number of channels.

    Example:
        >>> kbnn.layers.RPReLU()(tf.zeros((1, 8, 8, 64)))

    Source: Liu et al., ReActNet, 2020, equation 2; PresB-Net, equation 1.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = (known_channels(self, input_shape),)
        self.gamma = add_float32_weight(self, "gamma", shape, "zeros")
        self.zeta = add_float32_weight(self, "zeta", shape, "zeros")
        self.slope = add_float32_weight(self, "slope", shape, tf.keras.initializers.Constant(0.25))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return rprelu(inputs, *(tf.convert_to_tensor(value) for value in (self.gamma, self.slope, self.zeta)))
