"""The 1-bit fully connected layer."""

from typing import Any

import larq as lq
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers.binarized import Binarized


@tf.keras.utils.register_keras_serializable(package="kbnn")
class BinaryDense(Binarized, lq.layers.QuantDense):
    """A product of signs with signs: `(B, C)` to `(B, units)`.

    y = s·(input_quantizer(x) W_b) + b, W_b = kernel_quantizer(W), s as in `BinaryConv2D`.

    Larq Compute Engine has no binary dense operator, so the product is computed as a 1x1 convolution of one pixel: the
    result is the same, and on the device it is a bitpacked operator.

    Args:
        units: number of outputs.
        use_bias: whether to add a bias per output.
        **kwargs: as for `BinaryConv2D`, except for the arguments that only a convolution has.

    Raises:
        UsageError: fewer than one unit, an input that is not `(B, C)`, or as for `BinaryConv2D`.

    Example:
        >>> kbnn.layers.BinaryDense(512, input_quantizer="ste", kernel_quantizer="ste")
    """

    # Any, because the keyword arguments of Keras's layers are untyped.
    def __init__(self, units: int, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(units, use_bias=use_bias, **kwargs)
        if self.units < 1:
            raise UsageError(f"{self.name}: units must be at least 1, received {units}")

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank != 2 or shape[-1] is None:
            raise UsageError(f"{self.name} takes (batch, channels): received {shape}; flatten its input")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = self._binarized_input(tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]]))
        kernel = self.binarized_kernel()
        products = tf.nn.conv2d(x, tf.reshape(tf.cast(kernel, x.dtype), [1, 1, -1, self.units]), 1, "VALID")
        return tf.reshape(self._finish(products, self.output_scale(), self.output_offset(kernel)), [-1, self.units])
