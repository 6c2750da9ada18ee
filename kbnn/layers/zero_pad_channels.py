"""Padding with channels of zeros."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.errors import UsageError, unknown
from kbnn.layers.channels import known_channels

SIDES = ("both", "after")


@tf.keras.utils.register_keras_serializable(package="kbnn")
class ZeroPadChannels(tf.keras.layers.Layer):
    """Adds channels of zeros: `(B, H, W, C)` to `(B, H, W, filters)`.

    With half of them on each side, it is the parameter-free shortcut (type A) of a residual network. With all of them
    after the input's channels and an addition behind it, it is PresB-Net's shortcut, which adds to the first channels
    and concatenates the others.

    Args:
        filters: number of output channels.
        side: "both" for zeros on both sides, "after" for zeros after the input's channels.

    Raises:
        UsageError: an input that is not `(B, H, W, C)` or has more than `filters` channels, or an unknown side.

    Example:
        >>> kbnn.layers.ZeroPadChannels(32)(tf.ones((1, 8, 8, 16))).shape
        TensorShape([1, 8, 8, 32])

    Source: He et al., Deep residual learning, 2016, section 3.3, option A; PresB-Net, figures 7 and 8.
    """

    def __init__(self, filters: int, side: str = "both", **kwargs: object) -> None:
        super().__init__(**kwargs)
        if side not in SIDES:
            raise unknown(f"side of {self.name}", side, SIDES)
        self.filters = filters
        self.side = side

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank != 4:
            raise UsageError(f"{self.name} takes (batch, height, width, channels): received {shape}")
        missing = self.filters - known_channels(self, shape)
        if missing < 0:
            raise UsageError(f"{self.name} cannot pad to {self.filters} channels: received {input_shape[-1]}")
        before = missing // 2 if self.side == "both" else 0
        self._padding = (before, missing - before)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.pad(inputs, [[0, 0], [0, 0], [0, 0], self._padding])

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters, "side": self.side}
