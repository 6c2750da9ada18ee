"""Pieces that several networks are built from."""

import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.methods import Method

SHORTCUTS = ("bireal", "res", "none")
SHORTCUT_TYPES = ("A", "B")


def channels(filters: int, width: float) -> int:
    """The number of channels under a width multiplier."""
    return max(1, round(filters * width))


def real_convolution(x: tf.Tensor, filters: int, kernel_size: int, strides: int = 1, *, name: str) -> tf.Tensor:
    """A real-valued convolution without bias, zero-padded to the same size."""
    return tf.keras.layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def batch_normalization(x: tf.Tensor, *, name: str) -> tf.Tensor:
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def shortcut(x: tf.Tensor, filters: int, strides: int, shortcut_type: str, *, name: str) -> tf.Tensor:
    """The identity, or what brings `x` to `filters` channels at a stride.

    Type A: average pool, missing channels are zeros. Type B (Bi-Real Net, section 4.1): average pool, real 1x1
    convolution, batch normalization.
    """
    if strides == 1 and x.shape[-1] == filters:
        return x
    if strides > 1:
        x = tf.keras.layers.AveragePooling2D(strides, padding="same", name=f"{name}_pool")(x)
    if shortcut_type == "A":
        return ZeroPadChannels(filters, name=f"{name}_pad")(x)
    x = real_convolution(x, filters, 1, name=f"{name}_conv")
    return batch_normalization(x, name=f"{name}_bn")


@tf.keras.utils.register_keras_serializable(package="kbnn")
class ZeroPadChannels(tf.keras.layers.Layer):
    """Appends channels of zeros: `(B, H, W, C)` to `(B, H, W, filters)`, half of them on either side.

    Raises:
        UsageError: the input has more than `filters` channels.
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


def residual_block(
    x: tf.Tensor, filters: int, strides: int, method: Method, shortcuts: str, shortcut_type: str, *, name: str
) -> tf.Tensor:
    """Two binary 3x3 convolutions, each followed by batch normalization, under one of three shortcut designs.

    `bireal`: one shortcut per convolution (Bi-Real Net, figure 3b); `res`: one per two; `none`: no shortcut. All
    three have the same kernels under the same names.
    """
    entered = x
    for k, step in ((1, strides), (2, 1)):
        y = method.convolution(x, filters, 3, strides=step, name=f"{name}_conv{k}")
        y = batch_normalization(y, name=f"{name}_bn{k}")
        if shortcuts == "bireal":
            around = shortcut(x, filters, step, shortcut_type, name=f"{name}_shortcut{k}")
            y = tf.keras.layers.Add(name=f"{name}_add{k}")([y, around])
        if shortcuts == "res" and k == 2:
            around = shortcut(entered, filters, strides, shortcut_type, name=f"{name}_shortcut1")
            y = tf.keras.layers.Add(name=f"{name}_add2")([y, around])
        x = method.activation(y, name=f"{name}_act{k}")
    return x


def classifier(x: tf.Tensor, classes: int) -> tf.Tensor:
    """Global average pooling and a real dense layer that returns float32 logits."""
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.layers.Dense(classes, dtype="float32", name="logits")(x)


def check_choice(model: str, option: str, received: str, known: tuple[str, ...]) -> None:
    """Raises UsageError unless `received` is one of the values that the option takes."""
    if received not in known:
        raise UsageError(f"{model}: received {option}='{received}', choose one of {', '.join(known)}")
