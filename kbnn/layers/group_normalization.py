"""Group normalization of feature maps."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import compiled, narrow, widen
from kbnn.errors import UsageError
from kbnn.layers.channels import add_float32_weight, check_divides, known_channels


def _mean(x: tf.Tensor) -> tf.Tensor:
    """The mean of each sample's group: `(B, H, W, groups, C/groups)` to `(B, 1, 1, groups, 1)`."""
    # In two stages, which is cheaper on the device.
    return tf.reduce_mean(tf.reduce_mean(x, [1, 2], keepdims=True), -1, keepdims=True)


def _normalized(x: tf.Tensor, epsilon: float) -> tuple[tf.Tensor, tf.Tensor]:
    centred = x - _mean(x)
    factor = tf.math.rsqrt(_mean(tf.square(centred)) + epsilon)
    return centred * factor, factor


@compiled
def _forward(x: tf.Tensor, epsilon: float) -> tf.Tensor:
    return narrow(_normalized(widen(x), epsilon)[0], x.dtype)


@compiled
def _backward(x: tf.Tensor, dy: tf.Tensor, epsilon: float) -> tf.Tensor:
    y, factor = _normalized(widen(x), epsilon)
    dy_wide = widen(dy)
    return narrow(factor * (dy_wide - _mean(dy_wide) - y * _mean(dy_wide * y)), dy.dtype)


def group_normalization(x: tf.Tensor, epsilon: float) -> tf.Tensor:
    """(x - mean)/√(var + ε) over (H, W, C/groups) of `(B, H, W, groups, C/groups)`."""

    @tf.custom_gradient
    def normalize(x: tf.Tensor) -> tf.Tensor:
        return _forward(x, epsilon), lambda dy: _backward(x, dy, epsilon)

    return normalize(x)


@tf.keras.utils.register_keras_serializable(package="kbnn")
class GroupNormalization(tf.keras.layers.Layer):
    """Normalizes each sample over height, width and the channels of a group: `(B, H, W, C)` to the same shape.

    y = (x - mean)/√(var + ε), in float32; with `affine`, y·γ_c + β_c. The gradient flows through mean and variance.
    With one group it is layer normalization over (H, W, C).

    Computes the same as `tf.keras.layers.GroupNormalization`, but always in float32 and in fewer passes over memory.

    Args:
        groups: number of groups; neighbouring channels form a group.
        affine: whether each channel has a learned γ_c (initially 1) and β_c (initially 0).
        epsilon: ε.

    Raises:
        UsageError: an input that is not (B, H, W, C), or channels that are not divisible by the number of groups.

    Example:
        >>> kbnn.layers.GroupNormalization()(tf.zeros((1, 8, 8, 64)))

    Source: Wu and He, Group normalization, 2018. PresB-Net, equation 3 ("layer normalization"), has one group; its code
    has groups=2 and affine=True. SiMaN's code standardizes the input of each binary convolution with one group.
    """

    def __init__(self, groups: int = 1, affine: bool = False, epsilon: float = 1e-5, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.groups = groups
        self.affine = affine
        self.epsilon = epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        channels = known_channels(self, input_shape)
        if tf.TensorShape(input_shape).rank != 4:
            raise UsageError(f"{self.name} takes (batch, height, width, channels): received {input_shape}")
        check_divides(self.name, self.groups, channels, "channels")
        if self.affine:
            self.gamma = add_float32_weight(self, "gamma", (channels,), "ones")
            self.beta = add_float32_weight(self, "beta", (channels,), "zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        height, width, channels = inputs.shape[1:]
        height, width = height or tf.shape(inputs)[1], width or tf.shape(inputs)[2]
        grouped = tf.reshape(inputs, [-1, height, width, self.groups, channels // self.groups])
        y = tf.reshape(group_normalization(grouped, self.epsilon), [-1, height, width, channels])
        return y * tf.cast(self.gamma, y.dtype) + tf.cast(self.beta, y.dtype) if self.affine else y

    def get_config(self) -> Config:
        return {**super().get_config(), "groups": self.groups, "affine": self.affine, "epsilon": self.epsilon}


# Loads models that were saved when this layer was called SampleNormalization.
tf.keras.utils.get_custom_objects()["kbnn>SampleNormalization"] = GroupNormalization
