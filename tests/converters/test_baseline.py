"""Twins of a binary network as stock TensorFlow Lite files."""

import collections

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn.converters import ConversionError, export_float, export_int8
from kbnn.converters.baseline import as_ordinary
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import audit, flatbuffer, interpreter


def counted(path):
    return collections.Counter(operator.name for operator in flatbuffer.read(path).operators)


@pytest.mark.parametrize("in_int8", [False, True])
def test_an_ordinary_twin_is_a_resnet_with_everything_fused(in_int8, bireal, tmp_path):
    """Stem, two blocks and a shortcut: four convolutions, two additions, and no operator for ReLU or normalization."""
    path, images = tmp_path / "twin.tflite", sample_networks.images(bireal, 4)
    if in_int8:
        export_int8(bireal, path, images, ordinary=True)
    else:
        export_float(bireal, path, ordinary=True)
    expected = {"CONV_2D": 4, "ADD": 2, "AVERAGE_POOL_2D": 1, "MEAN": 1, "FULLY_CONNECTED": 1}
    found = counted(path)
    assert {name: found[name] for name in expected} == expected
    assert sum(found.values()) - sum(expected.values()) <= (2 if in_int8 else 0)


def test_an_ordinary_twin_has_the_macs_of_the_network(bireal, bireal_file, tmp_path):
    export_float(bireal, tmp_path / "twin.tflite", ordinary=True)
    binary, twin = audit.audit(bireal_file), audit.inspect(tmp_path / "twin.tflite")
    assert twin.float_macs == binary.binary_macs + binary.float_macs
    assert twin.silent_fallbacks == []


def test_an_ordinary_twin_computes_rectified_sums(bireal):
    """add1 = stem_bn + conv1_bn, rectified for all of its consumers."""
    graph = as_ordinary(lift(Reference(bireal)))
    values = graph.run({"image": tf.constant(sample_networks.images(bireal, 2))})
    stem, total = np.maximum(values["stem_bn"], 0.0), values["add1"].numpy()
    convolution = graph["conv1_bn"].operation
    flips = np.sign(bireal.get_layer("conv1_bn").gamma)
    assert np.array_equal(np.sign(convolution.kernel), np.where(bireal.get_layer("conv1").kernel < 0, -1, 1) * flips)
    convolved = tf.nn.conv2d(stem, convolution.kernel.astype(np.float32), 1, "SAME")
    np.testing.assert_allclose(total, stem + convolved + convolution.bias.astype(np.float32), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [tf.keras.layers.GRU, tf.keras.layers.LSTM])
def test_a_twin_of_a_recurrent_layer(layer, tmp_path):
    image = tf.keras.Input((6, 6, 32), name="image")
    x = tf.keras.layers.Reshape((6, 192))(sample_networks.convolution(image, 32, "binary"))
    model, path = tf.keras.Model(image, layer(4, name="recurrent")(x)), tmp_path / "twin.tflite"
    images = sample_networks.images(model, 2)
    export_float(model, path)
    (found,) = interpreter.run(path.read_bytes(), [images])
    np.testing.assert_allclose(found, model(images), atol=1e-5)
    with pytest.raises(ConversionError, match=r"layer 'recurrent' is a loop, .* to int8: build it with unroll=True"):
        export_int8(model, path, images)
