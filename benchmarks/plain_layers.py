"""Methods that build layers other than kbnn's, for comparison."""

import larq as lq
import tensorflow as tf

from kbnn.methods import Method


class Larq(Method):
    """Bi-Real Net's method in plain Larq layers."""

    def convolution(
        self, x: tf.Tensor, filters: int, kernel_size: int, strides: int = 1, *, name: str, **_: object
    ) -> tf.Tensor:
        return lq.layers.QuantConv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            pad_values=1.0,
            use_bias=False,
            input_quantizer="approx_sign",
            kernel_quantizer="magnitude_aware_sign",
            name=name,
        )(x)


class Linear(Method):
    """Real-valued convolutions without activations: the minimum of a float network."""

    def convolution(
        self, x: tf.Tensor, filters: int, kernel_size: int, strides: int = 1, *, name: str, **_: object
    ) -> tf.Tensor:
        layer = tf.keras.layers.Conv2D(filters, kernel_size, strides=strides, padding="same", use_bias=False, name=name)
        return layer(x)


class ReLU(Linear):
    """Real-valued convolutions after a ReLU."""

    def convolution(
        self, x: tf.Tensor, filters: int, kernel_size: int, strides: int = 1, *, name: str, **_: object
    ) -> tf.Tensor:
        x = tf.keras.layers.ReLU(name=f"{name}_relu")(x)
        return super().convolution(x, filters, kernel_size, strides, name=name)
