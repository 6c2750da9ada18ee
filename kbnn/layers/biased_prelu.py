"""Parametric ReLUs with learned shifts."""

import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import compiled, narrow, partial_sums, total, widen
from kbnn.layers.channels import add_float32_weight, check_divides, known_channels, parametric_relu


@compiled
def _prelu(x: tf.Tensor, bias: tf.Tensor, slope: tf.Tensor, offset: tf.Tensor | None) -> tf.Tensor:
    y = parametric_relu(widen(x) - bias, slope)
    return narrow(y if offset is None else y + offset, x.dtype)


@compiled
def _prelu_gradients(x: tf.Tensor, dy: tf.Tensor, bias: tf.Tensor, slope: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """dL/dx, and partial sums of dL/dx, dy·min(u, 0) and dy."""

    def terms(x: tf.Tensor, dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        u, dy = widen(x) - bias, widen(dy)
        return tf.where(u > 0, dy, slope * dy), dy * tf.minimum(u, 0.0), dy

    return narrow(terms(x, dy)[0], dy.dtype), partial_sums(terms, x, dy)


@tf.custom_gradient
def biased_prelu(x: tf.Tensor, bias: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """u where u > 0, else slope_c·u, with u = x - bias_c; bias and slope are float32 per channel.

    dL/dx = dy·(1 where u > 0, else slope_c), dL/dbias_c = -Σ dL/dx, dL/dslope_c = Σ dy·min(u, 0) of the channel.
    """

    def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        dx, sums = _prelu_gradients(x, dy, bias, slope)
        sum_dx, dslope, _ = tf.unstack(total(sums))
        return dx, -sum_dx, dslope

    return _prelu(x, bias, slope, None), gradients


@tf.custom_gradient
def rprelu(x: tf.Tensor, bias: tf.Tensor, slope: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """`biased_prelu` + offset_c; dL/doffset_c = Σ dy of the channel."""

    def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        dx, sums = _prelu_gradients(x, dy, bias, slope)
        sum_dx, dslope, doffset = tf.unstack(total(sums))
        return dx, -sum_dx, dslope, doffset

    return _prelu(x, bias, slope, offset), gradients


@tf.keras.utils.register_keras_serializable(package="kbnn")
class BiasedPReLU(tf.keras.layers.Layer):
    """PReLU(x - γ), a parametric ReLU with a learned shift: `(B, ..., C)` to the same shape.

    y = u where u > 0, else slope·u, with u = x - γ; γ starts at 0, the slope at 0.25.

    Args:
        groups: number of groups of neighbouring channels that share γ and slope; None for one per channel.

    Raises:
        UsageError: the channels cannot be split into this number of groups.

    Example:
        >>> kbnn.layers.BiasedPReLU(groups=2)(tf.zeros((1, 8, 8, 64)))

    Source: PresB-Net, equation 7.
    """

    def __init__(self, groups: int | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def build(self, input_shape: tf.TensorShape) -> None:
        channels = known_channels(self, input_shape)
        if self.groups is not None:
            check_divides(self.name, self.groups, channels, "channels")
        shape = (self.groups or channels,)
        self.gamma = add_float32_weight(self, "gamma", shape, "zeros")
        self.slope = add_float32_weight(self, "slope", shape, tf.keras.initializers.Constant(0.25))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        repeats = inputs.shape[-1] // self.gamma.shape[0]
        return biased_prelu(inputs, _repeated(self.gamma, repeats), _repeated(self.slope, repeats))

    def get_config(self) -> Config:
        return {**super().get_config(), "groups": self.groups}


def _repeated(parameter: tf.Variable, repeats: int) -> tf.Tensor:
    value = tf.convert_to_tensor(parameter)
    return value if repeats == 1 else tf.reshape(tf.tile(value[:, tf.newaxis], [1, repeats]), [-1])
