"""The clip that replaces the sign in real-valued networks."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from kbnn.activations import hard_tanh
from kbnn.loading import load_model

X = np.array([-3e38, -1.5, -1.0, -0.25, -0.0, 0.0, 0.5, 1.0, 1.0625, 4.0], np.float32)


@pytest.mark.xla
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_clips_and_passes_the_gradient_inside(dtype):
    x = tf.cast(np.clip(X, -6e4, None) if dtype == "float16" else X, dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = hard_tanh(x)
    np.testing.assert_array_equal(tf.cast(y, tf.float32), np.clip(X, -1, 1))
    np.testing.assert_array_equal(tf.cast(tape.gradient(y, x), tf.float32), np.abs(X) <= 1)


def test_is_registered_with_keras():
    layer = tf.keras.layers.Activation(hard_tanh)
    again = tf.keras.layers.Activation.from_config(layer.get_config())
    assert again.activation is hard_tanh


@tf.keras.utils.register_keras_serializable(package="tests")
def half(x):
    return x / 2


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("ste_sign", np.where(X >= 0, 1, -1)),
        ("approx_sign", np.where(X >= 0, 1, -1)),
        ("ste_heaviside", X > 0),
        ("hard_tanh", np.clip(X, -1, 1)),
        (lq.math.sign, np.where(X >= 0, 1, -1)),
        (lq.math.heaviside, X > 0),
        (half, X / 2),
    ],
)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_activations_of_larq_and_registered_ones_work_by_name_and_load(activation, expected, suffix, tmp_path):
    """The newest Keras calls the class on the input, or does not find the function again."""
    values = tf.keras.Input(10)
    x = tf.keras.layers.Activation(activation)(values)
    model = tf.keras.Model(values, [x, tf.keras.layers.Dense(10, activation, use_bias=False)(values)])
    model.layers[-1].set_weights([np.eye(10)])
    model.save(tmp_path / f"model{suffix}")
    for network in (model, load_model(tmp_path / f"model{suffix}")):
        for output in network(X[np.newaxis]):
            np.testing.assert_array_equal(output[0], expected)


def test_activation_ste_sign_trains_by_its_straight_through_gradient():
    x = tf.constant([-2.0, -0.5, 0.5, 2.0])
    layer = tf.keras.layers.Activation("ste_sign")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 0])


def test_an_error_within_a_layer_leaves_no_kernel_binarized():
    """Larq's own scope would leave it so, and every model that is saved from then on."""
    layer = lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    layer.build((None, 8, 8, 3))
    with pytest.raises(ValueError, match="ndim"):
        layer(tf.zeros((8, 8, 3)))
    assert not lq.context.should_quantize()
    assert len(np.unique(np.abs(layer.get_weights()[0]))) > 1
    with lq.context.quantized_scope(True):
        assert lq.context.should_quantize()
        assert np.array_equal(np.unique(layer.get_weights()[0]), [-1, 1])
    assert not lq.context.should_quantize()
