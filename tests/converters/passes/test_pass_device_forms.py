"""Forms of real-valued convolutions that run with fewer instructions on devices."""

import re

import numpy as np
import pytest
import sample_networks
import tensorflow as tf
from sample_graphs import Builder, assert_equal, operators

from kbnn import models
from kbnn.converters import convert, verify
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.operations import Convolution, Pool
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, forms
from kbnn.converters.passes.hybrid import HybridConvolution, scales_after_pools
from kbnn.converters.tflite import flatbuffer, interpreter
from kbnn.converters.tflite.operators import layer_name
from kbnn.errors import UsageError

keras = tf.keras.layers


@pytest.fixture(scope="module")
def model():
    """A large enough stem, and a shortcut that is followed by a sign and costs less in float on every device."""
    image = tf.keras.Input((128, 128, 3), name="image")
    x = keras.Conv2D(32, 7, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = keras.MaxPooling2D(2, name="pool")(keras.BatchNormalization(name="stem_bn")(x))
    x = keras.Conv2D(64, 1, use_bias=False, name="short")(x)
    x = keras.BatchNormalization(name="short_bn")(x)
    x = keras.Add(name="add")([x, sample_networks.convolution(x, 64, "conv")])
    x = keras.Dense(4, name="logits")(keras.GlobalAveragePooling2D(name="mean")(x))
    return sample_networks.randomized(tf.keras.Model(image, x, name="large"))


def outputs(path, images):
    return interpreter.run(flatbuffer.read(path).data, [images])[0]


def names(path):
    return [operator.name for operator in flatbuffer.read(path).operators]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["pi4", "pi5", "android"])
def test_a_gathered_bias_changes_no_bit(device, model, tmp_path):
    images = sample_networks.images(model, 4)
    plain = convert(model, tmp_path / "plain.tflite", images)
    gathered = convert(model, tmp_path / "gathered.tflite", images, device=device)
    assert names(gathered.path) == ["GATHER", *names(plain.path)]
    assert 0 < gathered.size_bytes - plain.size_bytes < 1200
    np.testing.assert_array_equal(outputs(gathered.path, images), outputs(plain.path, images))
    assert verify(model, gathered.path, images).passed


def hybrid_layers(file):
    return {
        layer_name(file, operator)
        for operator in file.operators
        if operator.name == "CONV_2D" and operator.inputs[1].dtype == "int8"
    }


@pytest.mark.slow
@pytest.mark.parametrize("device", ["pi4", "pi5"])
def test_hybrid_convolutions_compute_what_their_graph_does(device, model, tmp_path):
    images = sample_networks.images(model, 8)
    artifact = convert(model, tmp_path / "hybrid.tflite", images, device=device, weights="int8")
    assert artifact.parity.passed
    file = flatbuffer.read(artifact.path)
    assert hybrid_layers(file) == {"stem"}
    # The stem's filters have one scale, and the channels are scaled after max pooling.
    stem = next(operator for operator in file.operators if operator.name == "CONV_2D")
    assert len(stem.inputs[1].scales) == 1
    at = names(artifact.path).index("MAX_POOL_2D")
    assert names(artifact.path)[at + 1] == "MUL"
    assert {c.name: c.bits for c in artifact.audit.float_convolutions} == {"stem": 8, "short": 8, "logits": 8}
    compared = {layer.name: layer.difference for layer in artifact.parity.layers}
    assert {"pool", "short"} <= set(compared)
    assert max(compared.values()) < 2e-3
    assert verify(model, artifact.path, images).passed


def hybrid_by_hand(*weights):
    x = np.array([[-12.8, 12.7, 0.06, 0.04]], np.float32).reshape(1, 1, 4, 1)
    kernel, bias = np.array(weights).reshape(1, 1, 1, -1), np.ones(len(weights))
    return HybridConvolution(kernel, bias, (1, 1), (1, 1), "valid")(tf.constant(x)).numpy().reshape(4, -1).T


def test_a_hybrid_convolution_by_hand():
    """Levels from -12.8 to 12.7 in steps of 1/10; 0.06 is closer to 0.1 than to 0."""
    values = [[-24.6, 26.4, 1.2, 1.0], [-11.8, 13.7, 1.1, 1.0]]
    np.testing.assert_allclose(hybrid_by_hand(2.0, 1.0), values, atol=1e-5)


def test_a_hybrid_convolution_of_one_scale_by_hand():
    """Levels of 12.8 / 127 = 0.10079 around zero: 12.7 becomes 126 of them, 0.06 one, and 0.04 none."""
    values = [-12.8, 126 * 12.8 / 127, 12.8 / 127, 0.0]
    np.testing.assert_allclose(hybrid_by_hand(2.0, -2.0), 1 + np.outer([2, -2], values), atol=1e-5)


def test_scales_move_behind_max_pooling():
    b = Builder((6, 6, 3))
    kernel = b.random.normal(size=(3, 3, 3, 8)) * np.arange(1, 9)
    stem = Convolution(kernel, b.random.normal(size=8), (1, 1), (1, 1), "same")
    b.add("stem", stem, "image", shape=(6, 6, 8))
    b.add("pool", Pool("max", (2, 2), (2, 2), "same"), "stem", shape=(3, 3, 8))
    graph = b.graph(b.affine("next", "pool"))
    scaled = scales_after_pools(graph, ["stem"])
    assert_equal(graph, scaled)
    np.testing.assert_allclose(np.abs(scaled["stem"].operation.kernel).max((0, 1, 2)), np.ones(8))
    assert operators(scaled)[:3] == ["CONV_2D", "MAX_POOL_2D", "MUL"]
    assert scales_after_pools(graph, ["other"]) is graph


def test_scales_stay_where_an_output_is_the_pooled_value():
    b = Builder((6, 6, 3))
    stem = Convolution(b.random.normal(size=(3, 3, 3, 8)), np.ones(8), (1, 1), (1, 1), "same")
    b.add("stem", stem, "image", shape=(6, 6, 8))
    graph = b.graph(b.add("pool", Pool("max", (2, 2), (2, 2), "same"), "stem", shape=(3, 3, 8)))
    assert scales_after_pools(graph, ["stem"]) is graph


@pytest.fixture(scope="module")
def shortcuts():
    """Three real-valued 1x1 convolutions with 6.4 M MACs each, as in a ResNet-18 at 224x224."""
    found = {}
    for size, channels in ((56, 64), (28, 128), (14, 256)):
        image = tf.keras.Input((size, size, channels), name="image")
        x = keras.AveragePooling2D(2, name="pool")(image)
        x = keras.Conv2D(2 * channels, 1, use_bias=False, name="short")(x)
        x = keras.Add(name="add")([x, sample_networks.convolution(image, 2 * channels, "conv", strides=2)])
        found[size // 2] = sample_networks.randomized(tf.keras.Model(image, x, name=f"shortcut{size}"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "size", "is_hybrid"),
    [("pi4", 28, False), ("pi4", 14, False), ("pi4", 7, True), ("pi5", 28, True), ("pi5", 7, True)],
)
def test_shortcuts_are_hybrid_where_that_costs_less(device, size, is_hybrid, shortcuts, tmp_path):
    """On a Cortex-A72, 3.2 M instead of 2.3 M instructions at 28x28, but 2.1 M instead of 2.3 M at 7x7."""
    model = shortcuts[size]
    path = tmp_path / "shortcut.tflite"
    artifact = convert(model, path, sample_networks.images(model, 2), device=device, weights="int8")
    assert artifact.parity.passed
    assert hybrid_layers(flatbuffer.read(path)) == ({"short"} if is_hybrid else set())
    assert "RESIZE_BILINEAR" in names(path)
    assert "AVERAGE_POOL_2D" not in names(path)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["generic", "pi4", "android"])
def test_int8_activations_give_way_to_float_ones_that_are_faster(device, model, tmp_path):
    images = sample_networks.images(model, 16)
    artifact = convert(model, tmp_path / "int8.tflite", images, device=device, calibration=images)
    expected = convert(model, tmp_path / "weights.tflite", images, device=device, weights="int8")
    assert names(artifact.path) == names(expected.path)
    assert verify(model, artifact.path, images).passed
    assert re.search(
        rf"device '{device}': an estimated [\d.]+ M.* instructions with float activations and int8 weights, [\d.]+ M"
        ".* with int8 activations; the file has float activations",
        str(artifact),
    )


@pytest.mark.slow
def test_int8_activations_stay_where_they_are_faster_on_every_device(tmp_path):
    """A real-valued convolution of 3x3x64x64 is cheaper in integers, with and without dot products."""
    image = tf.keras.Input((32, 32, 64), name="image")
    x = keras.Conv2D(64, 3, padding="same", name="real")(image)
    model = sample_networks.randomized(tf.keras.Model(image, sample_networks.convolution(x, 64, "conv")))
    images = sample_networks.images(model, 4)
    artifact = convert(model, tmp_path / "int8.tflite", images, calibration=images)
    assert "and" in artifact.note
    assert artifact.note.endswith("the file has int8 activations")
    assert artifact.parity.in_int8


def test_small_stems_take_no_other_form():
    """3x3 to 32 channels: 7.2 M instructions on a Cortex-A72, 8.9 M with a GATHER, 13.8 M in integers."""
    image = tf.keras.Input((224, 224, 3), name="image")
    x = keras.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    lifted = lift(Reference(sample_networks.randomized(tf.keras.Model(image, x))))
    assert forms.with_forms(Options(device="pi4"), lifted).gathered == ()
    assert forms.with_forms(Options(device="pi4", weights="int8"), lifted).hybrid == ()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"device": "pi5", "weights": "int8"}])
@pytest.mark.parametrize(
    ("stem", "operators"),
    [
        ("narrow", ["CONV_2D", "MAX_POOL_2D", "CONV_2D"]),
        ("patches", ["CONV_2D"]),
        ("quicknet", ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"]),
    ],
)
def test_cheaper_stems_are_few_operators(stem, operators, arguments, tmp_path):
    small = models.build("bireal18", input_shape=(64, 64, 3), classes=4, blocks=(1,), width=0.5, stem=stem)
    small = sample_networks.shaken(small)
    artifact = convert(small, tmp_path / "small.tflite", sample_networks.images(small), **arguments)
    assert artifact.parity.passed
    found = [name for name in names(artifact.path) if name not in ("DEQUANTIZE", "MUL")]
    assert found[: len(operators) + 1] == [*operators, "LceQuantize"]


def test_small_networks_keep_their_form(bireal, tmp_path):
    """At 12x12 there is nothing to gain, so the stem is not rounded."""
    lifted = lift(Reference(bireal))
    assert forms.with_forms(Options(device="pi4"), lifted).gathered == ()
    options = forms.with_forms(Options(device="pi5", weights="int8"), lifted)
    assert (options.hybrid, options.in_16_bits, options.in_32_bits) == ((), (), ("stem",))


@pytest.mark.parametrize(
    ("device", "size", "kernel"),
    [("generic", 64, "grouped"), ("pi4", 64, "portable"), ("pi5", 32, "grouped"), ("android", 32, "portable")],
)
def test_groups_are_split_where_no_fast_kernel_runs_them(device, size, kernel):
    """64·64·64/2 is more than 65,535, 32·32·64/2 is less."""
    layer = sample_networks.grouped(64, groups=2)
    lifted = lift(Reference(sample_networks.single(layer, (size, size, 64))))
    assert forms.kernel_for(device, lifted) == kernel


def test_groups_are_split_where_bits_would_be_written():
    """LCE's indirect kernel is portable C++ where it writes bits, whatever the size."""
    image = tf.keras.Input((8, 8, 64), name="image")
    x = keras.BatchNormalization(name="bn")(sample_networks.grouped(64, groups=2)(image))
    ends = {"bits": sample_networks.convolution(x, 32, "next"), "values": keras.Add()([x, image])}
    found = {
        name: [forms.kernel_for(device, lift(Reference(tf.keras.Model(image, end)))) for device in ("pi4", "generic")]
        for name, end in ends.items()
    }
    assert found == {"bits": ["portable", "grouped"], "values": ["grouped", "grouped"]}


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_layers_with_very_long_names_take_their_form(weights, tmp_path):
    image = tf.keras.Input((112, 112, 3), name="image")
    x = keras.Conv2D(64, 7, strides=2, padding="same", name="s" * 250)(image)
    x = keras.BatchNormalization(name="bn")(keras.MaxPooling2D(2, name="pool")(x))
    model = sample_networks.randomized(tf.keras.Model(image, sample_networks.convolution(x, 32, "conv")))
    images = sample_networks.images(model, 2)
    artifact = convert(model, tmp_path / "model.tflite", images, device="pi5", weights=weights)
    stem = next(operator for operator in flatbuffer.read(artifact.path).operators if operator.name == "CONV_2D")
    assert stem.inputs[1].dtype == weights
    assert ("GATHER" in names(artifact.path)) == (weights == "float32")


def test_an_unknown_device_is_one_error(bireal, tmp_path):
    with pytest.raises(UsageError, match="device"):
        convert(bireal, tmp_path / "model.tflite", device="pi3")
