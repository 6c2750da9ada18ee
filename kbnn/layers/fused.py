"""The training step of a 1-bit convolution in fewer passes over memory, with the same results as the plain call.

On a CPU, the elementwise work around a small convolution costs as much as the convolution. Here, sign and padding take
one pass, and the surrogate gradient takes another. The input gradient is computed without the padding; TensorFlow's
own gradient includes the padding and slices it off.

For training only: the LCE converter silently turns this form into a float convolution.
"""

from collections.abc import Callable

import larq as lq
import tensorflow as tf

from kbnn.compiled import compiled
from kbnn.layers.channels import Padding
from kbnn.layers.convolution_gradients import Strides, input_gradient, kernel_gradient
from kbnn.layers.rematerialization import Expression, expression
from kbnn.quantizers.base import Gradient, Parameters
from kbnn.quantizers.estimators import binarizer, surrogate

# A function (x, *parameters) -> ±1, and the parameters.
Binarizer = tuple[Callable[..., tf.Tensor], Parameters]

DTYPES = (tf.float32, tf.bfloat16, tf.float16)


def takes(quantizer: object, x: tf.Tensor) -> bool:
    """Whether `convolution` supports a quantizer, and the dtype and shape of `x`."""
    is_observed = hasattr(quantizer, "flip_ratio")
    return binarizer(quantizer) is not None and not is_observed and x.dtype in DTYPES and x.shape[1:].is_fully_defined()


def convolution(
    x: tf.Tensor, kernel: tf.Tensor, quantizer: lq.quantizers.Quantizer, strides: Strides, padding: Padding | None
) -> tf.Tensor:
    """conv(quantizer(x), kernel), optionally padded with ones: `(B, H, W, C)` to `(B, H', W', filters)`.

    Gradients: for `x`, that of the convolution through the quantizer's surrogate gradient; for `kernel`, that of the
    padded convolution; the quantizer's parameters receive theirs as well.
    """
    source = expression(x)
    # Passed in as tensors: a function with a custom gradient differentiates only with respect to its arguments.
    binarize = binarizer(quantizer)
    parameters = [tf.convert_to_tensor(variable) for variable in quantizer.trainable_variables]

    @tf.custom_gradient
    def convolve(x: tf.Tensor, kernel: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        forward = tf.ensure_shape(_padded_signs(source, padding, binarize), _padded_shape(x, padding))

        def gradients(dy: tf.Tensor) -> list[tf.Tensor]:
            # TensorFlow's "SAME" leaves out exactly the rows and columns that were added.
            dsigns = input_gradient(source.tensors[0], kernel, dy, strides, "SAME" if padding else "VALID")
            dx = tf.ensure_shape(_through(source, dsigns, *surrogate(quantizer)), x.shape)
            with tf.control_dependencies([dy]):
                signs = tf.ensure_shape(_padded_signs(source, padding, binarize), _padded_shape(x, padding))
            dparameters = quantizer.parameter_gradients(x, dx) if parameters else []
            return [dx, kernel_gradient(signs, kernel, dy, strides), *dparameters]

        return tf.nn.conv2d(forward, kernel, strides, "VALID"), gradients

    return convolve(x, kernel, *parameters)


@compiled
def _through(source: Expression, dsigns: tf.Tensor, gradient: Gradient, parameters: Parameters) -> tf.Tensor:
    """dL/dx of the quantizer, given dL/dsign(x): one pass over memory."""
    return gradient(source.function(*source.tensors), dsigns, *parameters)


@compiled
def _padded_signs(source: Expression, padding: Padding | None, binarize: Binarizer) -> tf.Tensor:
    function, parameters = binarize
    signs = function(source.function(*source.tensors), *parameters)
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
