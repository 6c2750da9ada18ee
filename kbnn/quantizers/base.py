"""What the quantizers share: the sign of this library, and the base class of those that only kernels can take."""

import larq as lq
import tensorflow as tf

from kbnn.errors import UsageError


def sign(x: tf.Tensor) -> tf.Tensor:
    """+1 where x >= 0 (-0.0 too), else -1: the form that the LCE converter recognises."""
    one = tf.constant(1.0, x.dtype)
    return tf.where(x >= 0, one, -one)


def clipped(x: tf.Tensor, dy: tf.Tensor, clip_value: float = 1.0) -> tf.Tensor:
    """The straight-through gradient: dy on abs(x) <= clip_value, else 0."""
    return tf.where(tf.abs(x) <= clip_value, dy, tf.zeros_like(dy))


def filter_axes(w: tf.Tensor) -> list[int]:
    """The axes that one filter spans: all but the last."""
    return list(range(len(w.shape) - 1))


def filter_size(w: tf.Tensor) -> int:
    """n, the number of weights of one filter."""
    return w.shape[:-1].num_elements()


def mean_magnitude(w: tf.Tensor) -> tf.Tensor:
    """mean(abs(W)) per filter, in float32, shape `(Cout,)`; finite for every finite kernel."""
    magnitude = tf.abs(tf.cast(w, tf.float32))
    axes = filter_axes(w)
    # Divided before it is summed, and held under the largest: the sum of huge weights would overflow.
    mean = tf.reduce_sum(magnitude * (1.0 / filter_size(w)), axes)
    return tf.minimum(mean, tf.reduce_max(magnitude, axes))


class KernelQuantizer(lq.quantizers.Quantizer):
    """A quantizer whose result depends on the filter a weight belongs to, so that it takes kernels only.

    Raises:
        UsageError: on build, when it is given activations (a shape with an unknown batch size).
    """

    precision = 1

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank is None or shape.rank < 2 or not shape.is_fully_defined():
            raise UsageError(
                f"{type(self).__name__} binarizes kernels, of a known shape (..., inputs, outputs): received {shape}; "
                f"pass it as kernel_quantizer, and an activation's sign such as 'ste_sign' as input_quantizer"
            )
        super().build(input_shape)
