"""The 1-bit convolution."""

import larq as lq
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers import fused
from kbnn.layers.binarized import Binarized, ScaleRegularizer
from kbnn.layers.channels import Padding, check_divides, known_channels, same_padding
from kbnn.layers.grouped_convolution import conv2d
from kbnn.quantizers.registry import Identifier


@tf.keras.utils.register_keras_serializable(package="kbnn")
class BinaryConv2D(Binarized, lq.layers.QuantConv2D):
    """A convolution of signs with signs, padded with ones: `(B, H, W, C)` to `(B, H', W', filters)`.

    y = s·(input_quantizer(x) ∗ kernel_quantizer(W)) + b, s = 1, mean(abs(W)) or a learned α, per output channel or for
    the layer.

    The gradients are those of the quantizers.

    Args:
        filters: number of output channels.
        kernel_size: height and width, or one number for both.
        strides: vertical and horizontal, or one number for both.
        padding: "same" or "valid".
        groups: number of groups that input channels and filters are split into; each is convolved separately.
        input_quantizer: binarizes the activations: a name (see `kbnn.quantizers.names`) or a quantizer; None leaves
            them real-valued.
        kernel_quantizer: binarizes the latent kernel: as `input_quantizer`.
        scale: scale of the output: None, "mean_abs" (of the latent kernel, without a gradient) or "learned" (a
            positive weight `alpha`).
        scale_scope: "filter" for one scale per output channel, "layer" for one scale for the whole layer.
        scale_initializer: initial value of a learned scale: the "mean" or "median" of abs(W), or a number.
        scale_regularizer: a penalty of (W, α) such as `kbnn.regularizers.Manhattan`.
        use_bias: whether to add a bias per output channel.
        pad_values: the value of "same" padding. +1 is one of the two values of 1-bit activations; 0 would be a third.
        **kwargs: passed to `larq.layers.QuantConv2D`.

    Raises:
        UsageError: an unknown quantizer, a kernel quantizer as input quantizer, groups that do not divide channels and
            filters, an unknown or non-positive scale initializer, or data_format="channels_first".

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer="approx_sign", kernel_quantizer="magnitude_aware")

    Deviates from the papers: they pad with zeros. Layers without quantizers, as in a method's real-valued twin, are
    padded with ones as well, so that the twin computes the same function of its signs.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        groups: int = 1,
        input_quantizer: Identifier = None,
        kernel_quantizer: Identifier = None,
        scale: str | None = None,
        scale_scope: str = "filter",
        scale_initializer: str | float = "mean",
        scale_regularizer: ScaleRegularizer = None,
        use_bias: bool = False,
        pad_values: float = 1.0,
        **kwargs: object,
    ) -> None:
        check_divides(str(kwargs.get("name") or "BinaryConv2D"), groups, filters, "filters")
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            groups=groups,
            input_quantizer=input_quantizer,
            kernel_quantizer=kernel_quantizer,
            scale=scale,
            scale_scope=scale_scope,
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
        kernel = self.binarized_kernel()
        products = self._convolve(x, tf.cast(kernel, x.dtype))
        return self._finish(products, self.output_scale(), self.output_offset(kernel))

    def _is_fusible(self, inputs: tf.Tensor) -> bool:
        pads_ones = self.padding == "valid" or self.pad_values == 1.0
        return pads_ones and self.dilation_rate == (1, 1) and fused.takes(self.input_quantizer, inputs)

    def _train(self, x: tf.Tensor) -> tf.Tensor:
        kernel, scale = self.binarized_kernel(), self.output_scale()
        offset = self.output_offset(kernel)
        if scale is not None:
            # Scaling the kernel takes one pass; scaling the output and its gradients would take several.
            kernel = kernel * scale
        kernel = tf.cast(kernel, x.dtype)
        products = fused.convolution(x, kernel, self.input_quantizer, self.strides, self._ones(x))
        return self._finish(products, None, offset)

    def _ones(self, x: tf.Tensor) -> Padding | None:
        """The rows and columns of ones that "same" padding adds; None if it adds none."""
        if self.padding == "valid":
            return None
        rows, columns = same_padding(x.shape[1:3], self.kernel_size, self.strides)
        return (rows, columns) if any((*rows, *columns)) else None

    def _convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if self.padding == "valid" or self.pad_values == 0.0:
            return conv2d(x, kernel, self.strides, self.padding.upper(), self.dilation_rate)
        if self.kernel_size != (1, 1):
            x = tf.pad(x, self._get_padding_same(x), constant_values=self.pad_values)
        return conv2d(x, kernel, self.strides, "VALID", self.dilation_rate)
