"""In int8, signs are taken before a PReLU, which becomes a maximum, or a sum of both sides if a slope is above 1."""

from collections import Counter

import numpy as np
import pytest
import sample_networks
import tensorflow as tf
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import PReLU, Sign
from kbnn.converters.passes.prelu_int8 import prelu_as_maximum, prelu_of_any_slope, signs_before_prelu

keras = tf.keras.layers


def test_slopes_between_0_and_1_become_a_maximum():
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
    rewritten = prelu_of_any_slope(graph)
    assert_equal(graph, rewritten)
    expected = ["MAXIMUM", "MUL"] if slope < 1 else ["ADD", "MINIMUM", "MUL", "RELU"]
    assert sorted(operators(rewritten)) == expected


def sign_after(slopes: np.ndarray):
    b = Builder()
    return b.graph(b.add("sign", Sign(), b.add("act", PReLU(slopes), "image")))


def test_a_sign_is_taken_before_positive_slopes():
    graph = sign_after(np.linspace(0.01, 1.4, 32))
    rewritten = signs_before_prelu(graph)
    assert_equal(graph, rewritten)
    assert rewritten["sign"].inputs == ("image",)


@pytest.mark.parametrize("slope", [-0.3, 0.0])
def test_channels_of_other_slopes_stay_at_1(slope):
    graph = sign_after(np.where(np.arange(32) == 3, slope, 0.01))
    rewritten = signs_before_prelu(graph)
    assert_equal(graph, rewritten)
    side = rewritten[rewritten["sign"].inputs[0]]
    np.testing.assert_array_equal(rewritten[side.inputs[1]].operation.scale, np.arange(32) != 3)
    values = np.linspace(-0.04, 0.04, 32, dtype=np.float32) * np.ones((1, 4, 4, 1), np.float32)
    signs = rewritten.run({"image": tf.constant(values)})["sign"].numpy()
    assert (signs[..., 3] == 1).all()
    np.testing.assert_array_equal(np.delete(signs, 3, -1), np.delete(np.where(values < 0, -1, 1), 3, -1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "slope", "expected"),
    [
        ("sum", 0.3, {"MAXIMUM": 1}),
        ("convolution", 0.3, {"MAXIMUM": 1}),
        ("sum", -0.2, {"MAXIMUM": 2}),
        ("sum", 1.2, {"MINIMUM": 1, "RELU": 1}),
        ("convolution", 1.2, {"MINIMUM": 1, "RELU": 1}),
    ],
)
def test_an_int8_file_has_no_prelu(before, slope, expected):
    image = tf.keras.Input((8, 8, 3), name="image")
    x = keras.BatchNormalization(name="stem_bn")(keras.Conv2D(32, 3, padding="same", name="stem")(image))
    y = sample_networks.convolution(x, 32, "conv1")
    x = keras.PReLU(shared_axes=[1, 2], name="act")(keras.Add(name="add")([x, y]) if before == "sum" else y)
    x = keras.Add(name="add2")([x, sample_networks.convolution(x, 32, "conv2")])
    x = keras.Dense(4, name="logits")(keras.GlobalAveragePooling2D(name="pool")(x))
    model = sample_networks.shaken(tf.keras.Model(image, x))
    model.get_layer("act").alpha[..., 5].assign(tf.fill((1, 1), slope))
    file = sample_networks.in_int8(model)
    assert sample_networks.parity(model, file).passed
    found = Counter(operator.name for operator in file.operators)
    assert "PRELU" not in found
    assert expected.items() <= found.items()
    assert found["DEQUANTIZE"] == 1
