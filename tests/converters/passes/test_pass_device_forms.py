"""Forms of real-valued convolutions that run with fewer instructions on devices."""

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn import models
from kbnn.converters import convert, verify
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, forms
from kbnn.converters.passes.hybrid import HybridConvolution
from kbnn.converters.tflite import audit, flatbuffer, interpreter
from kbnn.errors import UsageError

keras = tf.keras.layers


@pytest.fixture(scope="module")
def model():
    """A large enough stem, and a shortcut of a million MACs that is followed by a sign."""
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


@pytest.mark.slow
@pytest.mark.parametrize(("device", "layers"), [("pi4", {"stem"}), ("pi5", {"stem", "short"})])
def test_hybrid_convolutions_compute_what_their_graph_does(device, layers, model, tmp_path):
    images = sample_networks.images(model, 8)
    artifact = convert(model, tmp_path / "hybrid.tflite", images, device=device, weights="int8")
    assert artifact.parity.passed
    file = flatbuffer.read(artifact.path)
    hybrid = {
        audit.layer_name(file, operator)
        for operator in file.operators
        if operator.name == "CONV_2D" and operator.inputs[1].dtype == "int8"
    }
    assert hybrid == layers
    assert {c.name: c.bits for c in artifact.audit.float_convolutions} == {"stem": 8, "short": 8, "logits": 8}
    compared = {layer.name: layer.difference for layer in artifact.parity.layers}
    assert layers <= set(compared)
    assert max(compared.values()) < 2e-3
    assert verify(model, artifact.path, images).passed


def test_a_hybrid_convolution_by_hand():
    """Levels from -12.8 to 12.7 in steps of 1/10; 0.06 is closer to 0.1 than to 0."""
    x = np.array([[-12.8, 12.7, 0.06, 0.04]], np.float32).reshape(1, 1, 4, 1)
    operation = HybridConvolution(np.full((1, 1, 1, 1), 2.0), np.ones(1), (1, 1), (1, 1), "valid")
    np.testing.assert_allclose(operation(tf.constant(x)).numpy().ravel(), [-24.6, 26.4, 1.2, 1.0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"device": "pi5", "weights": "int8"}])
def test_the_cheaper_stem_is_three_convolutions(arguments, tmp_path):
    small = models.build("bireal18", input_shape=(64, 64, 3), classes=4, blocks=(1,), width=0.5, stem="quicknet")
    small = sample_networks.shaken(small)
    artifact = convert(small, tmp_path / "small.tflite", sample_networks.images(small), **arguments)
    assert artifact.parity.passed
    found = [name for name in names(artifact.path) if name not in ("DEQUANTIZE", "MUL")]
    assert found[:4] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "LceQuantize"]


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


def test_an_unknown_device_is_one_error(bireal, tmp_path):
    with pytest.raises(UsageError, match="device"):
        convert(bireal, tmp_path / "model.tflite", device="pi3")
