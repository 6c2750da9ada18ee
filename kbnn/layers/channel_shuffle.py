"""Mixes the channels of different groups between grouped convolutions."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.layers.channels import check_divides, known_channels


@tf.keras.utils.register_keras_serializable(package="kbnn")
class ChannelShuffle(tf.keras.layers.Layer):
    """Interleaves the channels of groups: `(B, H, W, C)` to the same shape.

    Channel i·groups + g of the output is channel g·C/groups + i of the input.

    Args:
        groups: number of groups of the input's channels.

    Raises:
        UsageError: the channels cannot be split into this number of groups.

    Example:
        >>> kbnn.layers.ChannelShuffle(2)(tf.reshape(tf.range(4.0), (1, 1, 1, 4)))  # 0, 2, 1, 3

    Source: Zhang et al., ShuffleNet, 2018; PresB-Net, figure 1.
    """

    def __init__(self, groups: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def build(self, input_shape: tf.TensorShape) -> None:
        check_divides(self.name, self.groups, known_channels(self, input_shape), "channels")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        channels = inputs.shape[-1]
        positions = tf.shape(inputs)[:-1]
        grouped = tf.reshape(inputs, tf.concat([positions, [self.groups, channels // self.groups]], 0))
        axes = list(range(len(inputs.shape) - 1))
        dealt = tf.transpose(grouped, [*axes, len(axes) + 1, len(axes)])
        return tf.reshape(dealt, [-1, *inputs.shape[1:]] if inputs.shape[1:].is_fully_defined() else tf.shape(inputs))

    def get_config(self) -> Config:
        return {**super().get_config(), "groups": self.groups}
