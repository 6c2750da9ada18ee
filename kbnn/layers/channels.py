"""What layers with parameters per channel share. Channels are the last axis."""

import tensorflow as tf

from kbnn.errors import UsageError


def known_channels(layer: tf.keras.layers.Layer, input_shape: tf.TensorShape) -> int:
    """The number of channels of what the layer is given.

    Raises:
        UsageError: it is unknown, or there is no batch axis before it.
    """
    shape = tf.TensorShape(input_shape)
    if shape.rank is None or shape.rank < 2 or shape[-1] is None:
        raise UsageError(f"{layer.name} takes (batch, ..., channels) with a known number of channels: received {shape}")
    return shape[-1]


def check_divides(layer: str, groups: int, number: int, what: str) -> None:
    """Raises UsageError unless `number` of `what` can be split into `groups`."""
    if groups < 1 or number % groups:
        raise UsageError(f"{layer}: {number} {what} cannot be split into groups={groups}; choose a divisor")


def parametric_relu(x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """x where x > 0, else slope·x, `slope` a scalar or per channel: in the one form that converts to PRELU."""
    slopes = tf.broadcast_to(slope, [1] * (len(x.shape) - 2) + [x.shape[-1]])
    return tf.nn.relu(x) + -slopes * tf.nn.relu(-x)
