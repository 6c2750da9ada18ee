"""Kernels and activations of two values that are not opposite: files are exact on all of LCE's kernels."""

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn import layers, methods, quantizers
from kbnn.converters.graph.binary_layers import levels


def adabin(layer, **arguments):
    chosen = {"input_quantizer": quantizers.AdaptiveSign(), "kernel_quantizer": quantizers.EqualizedSign(), **arguments}
    return layer(**chosen)


CASES = {
    "convolution": (lambda: adabin(layers.BinaryConv2D, filters=64, kernel_size=3), (6, 6, 64)),
    "strides": (lambda: adabin(layers.BinaryConv2D, filters=32, kernel_size=3, strides=2, use_bias=True), (7, 6, 32)),
    "no padding": (lambda: adabin(layers.BinaryConv2D, filters=32, kernel_size=3, padding="valid"), (6, 6, 32)),
    "padded with -1": (lambda: adabin(layers.BinaryConv2D, filters=32, kernel_size=3, pad_values=-1.0), (6, 6, 32)),
    "scaled": (lambda: adabin(layers.BinaryConv2D, filters=32, kernel_size=3, scale="learned"), (6, 6, 32)),
    "1x1": (lambda: adabin(layers.BinaryConv2D, filters=32, kernel_size=1), (6, 6, 32)),
    "dense": (lambda: adabin(layers.BinaryDense, units=32), (64,)),
    "kernels alone": (
        lambda: adabin(layers.BinaryConv2D, filters=32, kernel_size=3, input_quantizer="ste_sign"),
        (6, 6, 32),
    ),
    "activations alone": (
        lambda: adabin(layers.BinaryConv2D, filters=32, kernel_size=3, kernel_quantizer="ste_sign"),
        (6, 6, 32),
    ),
}


@pytest.mark.slow
@pytest.mark.core("dense")
@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES)
def test_one_layer_on_all_kernels(make, shape):
    model = sample_networks.shaken(sample_networks.single(make(), shape))
    file = sample_networks.deployed(model)
    found = sample_networks.parity(model, file)
    assert found.passed
    assert [run.kernel for run in found.runs if run.refused is None] == ["default", "indirect", "reference"]
    assert [kernel.differing for kernel in found.kernels] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["grouped", "portable"])
def test_groups(kernel):
    model = sample_networks.single(adabin(layers.BinaryConv2D, filters=64, kernel_size=3, groups=2), (6, 6, 64))
    found = sample_networks.parity(model, sample_networks.deployed(model, kernel=kernel))
    assert found.passed
    assert found.kernels[0].differing == 0


@pytest.mark.slow
def test_batch_normalization_is_folded_into_both_parts_of_a_residual_block():
    image = tf.keras.Input((6, 6, 32), name="image")
    method = methods.get("adabin")
    y = method.convolution(image, 32, 3, name="conv")
    y = tf.keras.layers.Add(name="add")([tf.keras.layers.BatchNormalization(name="bn")(y), image])
    model = sample_networks.randomized(tf.keras.Model(image, method.activation(y, name="act")))
    file = sample_networks.deployed(model)
    assert sample_networks.parity(model, file).passed
    expected = ["LceQuantize", "LceBconv2d", "LceBconv2d", "CONV_2D", "ADD", "ADD", "PRELU"]
    assert sorted(operator.name for operator in file.operators) == sorted(expected)


def test_values_of_kernels():
    kernel = np.array([[0.5, 2.0, -1.0, 3.0], [0.5, -1.0, -1.0, -3.0], [0.5, 2.0, -1.0, 3.0]])
    centre, distance, signs = levels(kernel)
    np.testing.assert_array_equal(centre, [0, 0.5, 0, 0])
    np.testing.assert_array_equal(distance, [0.5, 1.5, 1, 3])
    np.testing.assert_array_equal(signs, [[1, 1, -1, 1], [1, -1, -1, -1], [1, 1, -1, 1]])
    assert levels(np.array([[1.0], [0.5], [-1.0]])) is None
