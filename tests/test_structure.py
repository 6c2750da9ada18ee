"""Which layers a model has, which of them are binary, and their kernels."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, quantizers, structure
from kbnn.errors import UsageError

SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
CLIP = {"kernel_constraint": "weight_clip"}

# Layer -> is it binary, does it have a binary kernel.
BINARY = {
    "kbnn's": (lambda: layers.BinaryConv2D(8, 3, **SIGNS), True, True),
    "dense": (lambda: layers.BinaryDense(8, **SIGNS), True, True),
    "Larq's": (lambda: lq.layers.QuantConv2D(8, 3, **SIGNS, **CLIP), True, True),
    "Larq's first layer": (lambda: lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign", **CLIP), False, True),
    "real kernel": (lambda: layers.BinaryConv2D(8, 3, input_quantizer="ste"), False, False),
    "depthwise": (
        lambda: lq.layers.QuantDepthwiseConv2D(
            3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", depthwise_constraint="weight_clip"
        ),
        True,
        True,
    ),
    "separable with one real kernel": (
        lambda: lq.layers.QuantSeparableConv2D(
            8,
            3,
            input_quantizer="ste_sign",
            depthwise_quantizer="ste_sign",
            depthwise_constraint="weight_clip",
            pointwise_quantizer=lq.quantizers.NoOp(precision=32),
        ),
        False,
        False,
    ),
    "ternary kernel": (
        lambda: layers.BinaryConv2D(8, 3, input_quantizer="ste", kernel_quantizer="ste_tern"),
        False,
        False,
    ),
    "kernel that is binary by itself": (
        lambda: lq.layers.QuantConv2D(
            8, 3, input_quantizer="ste_sign", kernel_quantizer=lq.quantizers.NoOp(precision=1), **CLIP
        ),
        True,
        True,
    ),
    "a function without a precision": (
        lambda: lq.layers.QuantConv2D(8, 3, input_quantizer=lq.math.sign, kernel_quantizer="ste_sign", **CLIP),
        True,
        True,
    ),
    "Keras's": (lambda: tf.keras.layers.Conv2D(8, 3), False, False),
}


@pytest.mark.parametrize("name", BINARY)
def test_which_layers_are_binary(name):
    make, is_binary, has_binary_kernel = BINARY[name]
    layer = make()
    assert structure.is_binary(layer) == is_binary
    assert structure.has_binary_kernel(layer) == has_binary_kernel


def nested() -> tf.keras.Model:
    inner = tf.keras.Sequential([tf.keras.Input((8, 8, 4)), layers.BinaryConv2D(4, 3, name="inside", **SIGNS)])
    wrapped = tf.keras.layers.TimeDistributed(tf.keras.layers.Dense(2, name="wrapped"))
    return tf.keras.Sequential(
        [tf.keras.Input((8, 8, 4)), inner, layers.GroupAwareNormalization(2, name="norm"), wrapped]
    )


def test_all_layers_of_nested_models():
    model = nested()
    names = [layer.name for layer in structure.layers(model)]
    assert {"inside", "norm", "batch_normalization", "activation", "wrapped"} <= set(names)
    assert len(structure.layers_of(model, quantizers.SteSign)) == 2
    assert [layer.name for layer in structure.binary_layers(model)] == ["inside"]
    flat = [layer.name for layer in structure.flat_layers(model) if not isinstance(layer, tf.keras.layers.InputLayer)]
    assert flat[:2] == ["inside", "norm"]
    assert structure.contains(model.layers[1], tf.keras.layers.BatchNormalization)
    assert not structure.contains(model.layers[0], tf.keras.layers.BatchNormalization)


class Holder(tf.Module):
    """A module that is no layer, whose layers Keras does not list."""

    def __init__(self) -> None:
        super().__init__()
        self.held = tf.keras.layers.Dense(2, name="held")


def test_layers_that_keras_does_not_list_are_reachable():
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, name="listed")], name="model")
    model.holder = Holder()
    assert [layer.name for layer in structure.layers(model)] == ["listed"]
    assert {layer.name for layer in structure.reachable_layers(model)} == {"model", "listed", "held"}


@pytest.mark.parametrize("received", ["model.keras", None])
def test_what_is_no_model_is_refused(received):
    with pytest.raises(UsageError, match=r"not a Keras model: received .*load a file with kbnn\.loading\.load_model"):
        structure.layers(received)


def test_a_real_valued_model_is_refused_with_advice():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(2)], name="real")
    with pytest.raises(UsageError, match="model 'real' has no binary layer"):
        structure.require_binary_layers(model)


def test_depthwise_kernels_have_their_filters_last():
    layer = BINARY["depthwise"][0]()
    layer.build((None, 8, 8, 4))
    kernel = structure.latent_kernel(layer)
    assert kernel.shape == (3, 3, 1, 4)
    np.testing.assert_array_equal(kernel[:, :, 0], layer.depthwise_kernel.latent_variable[..., 0])
    np.testing.assert_array_equal(structure.binary_kernel(layer), np.where(kernel >= 0, 1.0, -1.0))


def test_signs_are_the_upper_of_two_values():
    declared = quantizers.SteSign()
    np.testing.assert_array_equal(structure.signs([[-0.5, 0.0], [0.5, -0.0]], declared), [[False, True], [True, True]])
    # One value per column is compared with zero, two values with the middle between them.
    values = [[0.0, 3.0, -2.0, -1.0], [1.0, 1.0, -2.0, -3.0]]
    expected = [[False, True, False, True], [True, False, False, False]]
    np.testing.assert_array_equal(structure.signs(values, lq.quantizers.SteHeaviside()), expected)
