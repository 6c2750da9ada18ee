"""The training step of a 1-bit convolution in fewer passes over memory, with the plain call's results.

On a CPU the elementwise work around a small convolution costs as much as the convolution. Here sign and padding are
one pass, the surrogate gradient is another, and the input's gradient is computed without the padding, where the plain
gradient computes the padding's too and slices it off.

For training only. The LCE converter would make a float convolution of this form, without a word.
"""

from typing import Any

import larq as lq
import tensorflow as tf

from kbnn.compiled import compiled
from kbnn.layers.convolution_gradients import Strides, input_gradient, kernel_gradient
from kbnn.layers.recomputed import Recipe, recipe
from kbnn.quantizers import Estimator
from kbnn.quantizers.base import sign
from kbnn.quantizers.estimators import Gradient, surrogate

# Rows above and below, columns left and right, that a "same" convolution adds.
Padding = tuple[tuple[int, int], tuple[int, int]]

DTYPES = (tf.float32, tf.bfloat16, tf.float16)


def takes(quantizer: Any, x: tf.Tensor) -> bool:
    """Whether `convolution` knows the quantizer as a plain sign, and takes activations such as `x`."""
    is_sign = isinstance(quantizer, Estimator) or type(quantizer) in (lq.quantizers.ApproxSign, lq.quantizers.SteSign)
    is_observed = hasattr(quantizer, "flip_ratio")
    return is_sign and not is_observed and x.dtype in DTYPES and x.shape[1:].is_fully_defined()


def convolution(
    x: tf.Tensor, kernel: tf.Tensor, quantizer: Any, strides: Strides, padding: Padding | None
) -> tf.Tensor:
    """conv(sign(x), kernel), padded with ones or not: `(B, H, W, C)` to `(B, H', W', filters)`.

    Gradients: with respect to `x` that of the convolution, through the quantizer, whose parameters receive theirs;
    with respect to `kernel` that of the padded convolution.
    """
    source = recipe(x)
    # Passed in as tensors, so that the gradient of a custom gradient's result finds its way to them.
    parameters = [tf.convert_to_tensor(variable) for variable in quantizer.trainable_variables]

    @tf.custom_gradient
    def convolve(x: tf.Tensor, kernel: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        forward = tf.ensure_shape(_padded_sign(source, padding), _padded_shape(x, padding))

        def gradients(dy: tf.Tensor) -> list[tf.Tensor]:
            # TensorFlow's own "SAME" leaves out the very rows and columns that were added.
            dsigns = input_gradient(source.tensors[0], kernel, dy, strides, "SAME" if padding else "VALID")
            dx = tf.ensure_shape(_through(source, dsigns, *surrogate(quantizer)), x.shape)
            with tf.control_dependencies([dy]):
                signs = tf.ensure_shape(_padded_sign(source, padding), _padded_shape(x, padding))
            dparameters = quantizer.parameter_gradients(x, dx) if parameters else []
            return [dx, kernel_gradient(signs, kernel, dy, strides), *dparameters]

        return tf.nn.conv2d(forward, kernel, strides, "VALID"), gradients

    return convolve(x, kernel, *parameters)


@compiled
def _through(source: Recipe, dsigns: tf.Tensor, gradient: Gradient, parameters: tuple[Any, ...]) -> tf.Tensor:
    """dL/dx of the quantizer, given dL/dsign(x): one pass over memory."""
    return gradient(source.function(*source.tensors), dsigns, *parameters)


@compiled
def _padded_sign(source: Recipe, padding: Padding | None) -> tf.Tensor:
    signs = sign(source.function(*source.tensors))
    if padding is None:
        return signs
    # XLA on a CPU concatenates up to four times faster than it pads.
    (top, bottom), (left, right) = padding
    signs = tf.concat([*_ones(signs, 2, left), signs, *_ones(signs, 2, right)], 2)
    return tf.concat([*_ones(signs, 1, top), signs, *_ones(signs, 1, bottom)], 1)


def _ones(like: tf.Tensor, axis: int, size: int) -> list[tf.Tensor]:
    shape = [tf.shape(like)[0], *like.shape[1:]]
    shape[axis] = size
    return [tf.ones(shape, like.dtype)] if size else []


def _padded_shape(x: tf.Tensor, padding: Padding | None) -> tf.TensorShape:
    (top, bottom), (left, right) = padding or ((0, 0), (0, 0))
    return tf.TensorShape([x.shape[0], x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3]])
