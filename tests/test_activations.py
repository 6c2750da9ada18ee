"""The clip that replaces the sign, and the one next to it."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.activations import hard_tanh

X = np.array([-3e38, -1.5, -1.0, -0.25, -0.0, 0.0, 0.5, 1.0, 1.0625, 4.0], np.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_clips_and_passes_the_gradient_inside(dtype):
    x = tf.cast(np.clip(X, -6e4, None) if dtype == "float16" else X, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = hard_tanh(x)
    np.testing.assert_array_equal(tf.cast(y, tf.float32), np.clip(X, -1, 1))
    np.testing.assert_array_equal(tf.cast(tape.gradient(y, x), tf.float32), np.abs(X) <= 1)


def test_is_known_to_keras_by_its_name():
    layer = tf.keras.layers.Activation(hard_tanh)
    again = tf.keras.layers.Activation.from_config(layer.get_config())
    assert again.activation is hard_tanh
