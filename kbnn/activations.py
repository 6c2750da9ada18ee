"""Hard tanh: IR-Net's activation, which also replaces the sign in real-valued twins."""

import larq as lq
import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import compiled
from kbnn.quantizers.base import clipped

# Larq does not register these two, so Keras could not load a saved `Activation(larq.math.sign)`.
for _function in (lq.math.sign, lq.math.heaviside):
    tf.keras.utils.get_custom_objects().setdefault(_function.__name__, _function)

_gradient = compiled(clipped)


@compiled
def _clip(x: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(x, -tf.ones((), x.dtype), tf.ones((), x.dtype))


@tf.custom_gradient
def _hard_tanh(x: tf.Tensor) -> tf.Tensor:
    return _clip(x), lambda dy: _gradient(x, dy)


@tf.keras.utils.register_keras_serializable(package="kbnn")
def hard_tanh(x: tf.Tensor) -> tf.Tensor:
    """clip(x, -1, 1); its gradient is 1 on abs(x) <= 1, else 0.

    The same function as Larq's and Keras's, in two passes over memory per training step instead of eight.
    """
    return _hard_tanh(x)


@tf.keras.utils.register_keras_serializable(package="kbnn")
class HardTanh(tf.keras.layers.Activation):
    """`hard_tanh` as a layer. Unlike an `Activation` of that function, it also loads from `.h5` files."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(hard_tanh, **kwargs)

    def get_config(self) -> Config:
        return {key: value for key, value in super().get_config().items() if key != "activation"}
