"""In int8, a PReLU becomes a multiplication and a maximum."""

import numpy as np
import pytest
import sample_networks
import tensorflow as tf
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters import convert
from kbnn.converters.graph.operations import PReLU
from kbnn.converters.passes.prelu_int8 import prelu_as_maximum

keras = tf.keras.layers


def test_slopes_between_0_and_1():
    b = Builder()
    graph = b.graph(b.prelu("act", "image"))
    rewritten = prelu_as_maximum(graph)
    assert_equal(graph, rewritten)
    assert operators(rewritten) == ["MUL", "MAXIMUM"]


@pytest.mark.parametrize("slope", [-0.1, 1.1])
def test_other_slopes_stay(slope):
    b = Builder()
    slopes = np.where(np.arange(32) == 3, slope, 0.5)
    graph = b.graph(b.add("act", PReLU(slopes), "image"))
    assert prelu_as_maximum(graph) is graph


@pytest.mark.parametrize("before", ["sum", "convolution"])
def test_an_int8_file_has_no_prelu(before, tmp_path):
    image = tf.keras.Input((8, 8, 3), name="image")
    x = keras.BatchNormalization(name="stem_bn")(keras.Conv2D(32, 3, padding="same", name="stem")(image))
    y = sample_networks.convolution(x, 32, "conv1")
    x = keras.PReLU(shared_axes=[1, 2], name="act")(keras.Add(name="add")([x, y]) if before == "sum" else y)
    x = keras.Add(name="add2")([x, sample_networks.convolution(x, 32, "conv2")])
    x = keras.Dense(4, name="logits")(keras.GlobalAveragePooling2D(name="pool")(x))
    model = sample_networks.shaken(tf.keras.Model(image, x))
    calibration = sample_networks.images(model, 64, seed=2)
    artifact = convert(model, tmp_path / "model.tflite", sample_networks.images(model), calibration=calibration)
    assert artifact.parity.passed
    assert "PRELU" not in artifact.audit.operators
    assert artifact.audit.operators["MAXIMUM"] == 1
    assert artifact.audit.operators["DEQUANTIZE"] == 1
