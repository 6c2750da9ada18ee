"""Helpers for layers on `(batch, ..., channels)`: shape checks, padding, and a parametric ReLU."""

from collections.abc import Sequence

import tensorflow as tf

from kbnn.errors import UsageError


def known_channels(layer: tf.keras.layers.Layer, input_shape: tf.TensorShape) -> int:
    """The number of channels of a layer's input.

    Raises:
        UsageError: it is unknown, or there is no batch axis.
    """
    shape = tf.TensorShape(input_shape)
    if shape.rank is None or shape.rank < 2 or shape[-1] is None:
        raise UsageError(f"{layer.name} takes (batch, ..., channels) with a known number of channels: received {shape}")
    return shape[-1]


def add_float32_weight(
    layer: tf.keras.layers.Layer,
    name: str,
    shape: tuple[int, ...],
    initializer: str | tf.keras.initializers.Initializer,
    constraint: tf.keras.constraints.Constraint | None = None,
) -> tf.Variable:
    """Adds a trainable weight that is float32 under every policy, and that is not cast when it is read."""
    return layer.add_weight(
        name, shape, dtype=tf.float32, initializer=initializer, constraint=constraint, experimental_autocast=False
    )


def check_divides(layer: str, groups: int, number: int, what: str) -> None:
    """Raises UsageError unless `number` of `what` can be split into `groups`."""
    if groups < 1 or number % groups:
        raise UsageError(f"{layer}: {number} {what} cannot be split into groups={groups}; choose a divisor")


# Rows above and below, columns left and right.
Padding = tuple[tuple[int, int], tuple[int, int]]


def same_padding(
    sizes: Sequence[int], kernel_sizes: Sequence[int], strides: Sequence[int], dilations: Sequence[int] = (1, 1)
) -> Padding:
    """The rows and columns that TensorFlow's "same" padding adds; an odd one is added below or on the right."""
    missing = [
        max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        for size, kernel, stride, dilation in zip(sizes, kernel_sizes, strides, dilations, strict=True)
    ]
    rows, columns = ((number // 2, number - number // 2) for number in missing)
    return rows, columns


def parametric_relu(x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """x where x > 0, else slope·x, with one slope or one per channel; only this form converts to PRELU."""
    slopes = tf.broadcast_to(slope, [1] * (len(x.shape) - 2) + [x.shape[-1]])
    return tf.nn.relu(x) + -slopes * tf.nn.relu(-x)
