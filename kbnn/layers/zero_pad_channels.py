"""Padding with channels of zeros."""

import tensorflow as tf

from kbnn.errors import UsageError


@tf.keras.utils.register_keras_serializable(package="kbnn")
class ZeroPadChannels(tf.keras.layers.Layer):
    """Adds channels of zeros, half of them on either side: `(B, H, W, C)` to `(B, H, W, filters)`.

    The parameterless shortcut (type A) of a residual network to more channels.

    Args:
        filters: the number of output channels.

    Raises:
        UsageError: the input has more than `filters` channels.

    Example:
        >>> kbnn.layers.ZeroPadChannels(32)(tf.ones((1, 8, 8, 16))).shape
        TensorShape([1, 8, 8, 32])

    Source: He et al., Deep residual learning, 2016, section 3.3, option A.
    """

    def __init__(self, filters: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: tf.TensorShape) -> None:
        missing = self.filters - input_shape[-1]
        if missing < 0:
            raise UsageError(f"{self.name} cannot pad to {self.filters} channels: received {input_shape[-1]}")
        self._padding = (missing // 2, missing - missing // 2)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.pad(inputs, [[0, 0], [0, 0], [0, 0], self._padding])

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "filters": self.filters}
