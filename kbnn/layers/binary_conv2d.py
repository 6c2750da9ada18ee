"""The 1-bit convolution."""

from typing import Any

import larq as lq
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers import fused
from kbnn.layers.binarized import Binarized
from kbnn.layers.channels import check_divides, known_channels
from kbnn.layers.grouped_convolution import conv2d


@tf.keras.utils.register_keras_serializable(package="kbnn")
class BinaryConv2D(Binarized, lq.layers.QuantConv2D):
    """A convolution of signs with signs, padded with ones: `(B, H, W, C)` to `(B, H', W', filters)`.

    y = s·(input_quantizer(x) ∗ kernel_quantizer(W)) + b, s = 1, mean(abs(W)) or a learned α per output channel.

    Padding is +1, a value that 1-bit activations can take; zero would be a third one. The gradients are the
    quantizers' own.

    Args:
        filters: number of output channels.
        kernel_size: height and width, or one number for both.
        strides: vertical and horizontal, or one number for both.
        padding: "same" or "valid".
        groups: input channels and filters are split into so many groups, each convolved on its own.
        input_quantizer: binarizes the activations; None leaves them real.
        kernel_quantizer: binarizes the latent kernel; None leaves it real.
        scale: what multiplies the output, per channel: None, "mean_abs" (of the latent kernel, constant for the
            gradient) or "learned" (a positive weight `alpha`).
        scale_initializer: the learned scale starts at the "mean" or "median" of abs(W) per filter, or at a number.
        scale_regularizer: a penalty of (W, α) such as `kbnn.regularizers.Manhattan`.
        use_bias: adds a bias per output channel.
        pad_values: what "same" padding is made of.
        **kwargs: as `larq.layers.QuantConv2D`.

    Raises:
        UsageError: a group count that divides neither channels nor filters, an unknown or non-positive scale
            initializer, a kernel quantizer as input quantizer, or channels first.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer="ste_sign")
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        groups: int = 1,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        scale: str | None = None,
        scale_initializer: str | float = "mean",
        scale_regularizer: Any = None,
        use_bias: bool = False,
        pad_values: float = 1.0,
        **kwargs: Any,
    ) -> None:
        check_divides(kwargs.get("name") or "BinaryConv2D", groups, filters, "filters")
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            groups=groups,
            input_quantizer=input_quantizer,
            kernel_quantizer=kernel_quantizer,
            scale=scale,
            scale_initializer=scale_initializer,
            scale_regularizer=scale_regularizer,
            use_bias=use_bias,
            pad_values=pad_values,
            **kwargs,
        )
        if self.data_format != "channels_last":
            raise UsageError(
                f"{self.name} takes (batch, height, width, channels): received data_format='channels_first'"
            )

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank != 4:
            raise UsageError(f"{self.name} takes (batch, height, width, channels): received {shape}")
        check_divides(self.name, self.groups, known_channels(self, shape), "input channels")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training is True and self._is_fusible(inputs):
            return self._train(inputs)
        x = self._binarized_input(inputs)
        kernel = tf.cast(self.binarized_kernel(), x.dtype)
        return self._finish(self._convolve(x, kernel), self.output_scale())

    def _is_fusible(self, inputs: tf.Tensor) -> bool:
        pads_ones = self.padding == "valid" or self.pad_values == 1.0
        return pads_ones and self.dilation_rate == (1, 1) and fused.takes(self.input_quantizer, inputs)

    def _train(self, x: tf.Tensor) -> tf.Tensor:
        kernel, scale = self.binarized_kernel(), self.output_scale()
        if scale is not None:
            # Multiplying the output, and its gradients, would be passes over maps in the place of one over the kernel.
            kernel = kernel * scale
        kernel = tf.cast(kernel, x.dtype)
        return self._finish(fused.convolution(x, kernel, self.input_quantizer, self.strides, self._ones(x)), None)

    def _ones(self, x: tf.Tensor) -> fused.Padding | None:
        """How many rows and columns of ones "same" padding adds; None if none."""
        if self.padding == "valid":
            return None
        rows, columns = self._get_padding_same(x)[1:3]
        return (rows, columns) if any((*rows, *columns)) else None

    def _convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.padding == "valid" or self.pad_values == 0.0:
            return conv2d(x, kernel, self.strides, self.padding.upper(), self.dilation_rate)
        if self.kernel_size != (1, 1):
            x = tf.pad(x, self._get_padding_same(x), constant_values=self.pad_values)
        return conv2d(x, kernel, self.strides, "VALID", self.dilation_rate)
