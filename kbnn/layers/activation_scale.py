"""XNOR-Net's scale of the activations."""

import numpy as np
import tensorflow as tf

from kbnn._keras import Config
from kbnn.errors import UsageError, unknown
from kbnn.layers.channels import known_channels, same_padding

PADDINGS = ("same", "valid")


@tf.keras.utils.register_keras_serializable(package="kbnn")
class ActivationScale(tf.keras.layers.Layer):
    """Multiplies a binary layer's output y by the magnitude K of its input A: `[y, A]` to a tensor of y's shape.

    Convolutions: K = mean over channels of abs(A), averaged over the kernel's window at each output position, zero
    outside of A: `(B, H', W', 1)`. Dense layers: K = mean(abs(A)) of each sample, `(B, 1)`.
    Gradient: dL/dy = K·dL/dout; K passes no gradient.

    With K, a 1-bit convolution approximates the real-valued one; without it, only up to a factor that varies over
    positions. K does not fold: the device computes it in float for each layer.

    Args:
        kernel_size: the convolution's height and width, or one number for both.
        strides: the convolution's strides.
        padding: the convolution's padding, "same" or "valid".

    Raises:
        UsageError: an unknown padding, not two inputs, or inputs of different rank.

    Example:
        >>> convolution = kbnn.layers.BinaryConv2D(64, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
        >>> y = kbnn.layers.ActivationScale(3)([convolution(x), x])

    Source: Rastegari et al., XNOR-Net, 2016, section 3.2, equation 11.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if padding not in PADDINGS:
            raise unknown(f"padding of {self.name}", padding, PADDINGS)
        self.kernel_size = _pair(kernel_size)
        self.strides = _pair(strides)
        self.padding = padding

    def build(self, input_shape: list[tf.TensorShape]) -> None:
        shapes = [tf.TensorShape(shape) for shape in input_shape] if isinstance(input_shape, list | tuple) else []
        if len(shapes) != 2 or shapes[0].rank != shapes[1].rank or shapes[0].rank not in (2, 4):
            raise UsageError(f"{self.name} takes [a binary layer's output, its input]: received shapes {input_shape}")
        known_channels(self, shapes[1])
        super().build(input_shape)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        outputs, activations = inputs
        return outputs * tf.cast(self.scale(tf.stop_gradient(activations)), outputs.dtype)

    def scale(self, activations: tf.Tensor) -> tf.Tensor:
        """The scale K of an input A, in float32."""
        magnitude = tf.reduce_mean(tf.abs(tf.cast(activations, tf.float32)), -1, keepdims=True)
        if len(magnitude.shape) == 2 or self.kernel_size == (1, 1) == self.strides:
            return magnitude
        if self.padding == "same" and not magnitude.shape[1:].is_fully_defined():
            window = tf.fill((*self.kernel_size, 1, 1), 1 / (self.kernel_size[0] * self.kernel_size[1]))
            return tf.nn.conv2d(magnitude, window, self.strides, "SAME")
        if self.padding == "same":
            borders = same_padding(magnitude.shape[1:3], self.kernel_size, self.strides)
            magnitude = tf.pad(magnitude, [[0, 0], *borders, [0, 0]])
        return tf.nn.avg_pool2d(magnitude, self.kernel_size, self.strides, "VALID")

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width."""
    height, width = np.broadcast_to(value, 2).tolist()
    return height, width
