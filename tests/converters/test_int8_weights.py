"""Storing real-valued weights as int8 or int16."""

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn import layers
from kbnn.converters import convert, verify
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options
from kbnn.converters.passes.forms import with_forms
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.int8_weights import before_signs, small_stem, stored_as_int8
from kbnn.converters.verify.verification import reference_for


def network(stem=3):
    """A small stem, a real-valued convolution between signs, one after all signs, and a classifier."""
    image = tf.keras.Input((12, 12, 3), name="image")
    x = sample_networks.layers.Conv2D(32, stem, padding="same", use_bias=False, name="stem")(image)
    x = sample_networks.layers.BatchNormalization(name="stem_bn")(x)
    x = sample_networks.layers.Add(name="add1")([x, sample_networks.convolution(x, 32, "conv1")])
    y = sample_networks.layers.Conv2D(64, 1, name="short")(x)
    x = sample_networks.layers.Add(name="add2")([y, sample_networks.convolution(x, 64, "conv2")])
    x = sample_networks.layers.Add(name="add3")([x, sample_networks.convolution(x, 64, "conv3")])
    x = sample_networks.layers.Conv2D(64, 1, name="mix")(x)
    x = sample_networks.layers.GlobalAveragePooling2D(name="pool")(x)
    return sample_networks.shaken(tf.keras.Model(image, sample_networks.layers.Dense(10, name="logits")(x)))


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    return convert(model, path, sample_networks.images(model), weights="int8")


@pytest.mark.slow
def test_each_kernel_has_the_bits_that_signs_need(artifact, model, tmp_path):
    bits = {"stem": 32, "short": 16, "mix": 8, "logits": 8}
    assert {c.name: c.bits for c in artifact.audit.float_convolutions} == bits
    plain = convert(model, tmp_path / "plain.tflite", sample_networks.images(model))
    expected = 2 * 32 * 64 + 3 * (64 * 64 + 64 * 10)
    overhead = 3000  # The operators, their tensors and scales.
    assert expected - overhead < plain.size_bytes - artifact.size_bytes < expected


def test_a_large_stem_is_stored_in_16_bits():
    """23x23x3x32 float32 weights take 203,136 bytes."""
    lifted = lift(Reference(network(stem=23)))
    assert (before_signs(lifted), small_stem(lifted)) == (("stem", "short"), ())
    options = with_forms(Options(weights="int8"), lifted)
    assert (options.in_16_bits, options.in_32_bits) == (("stem", "short"), ())


def test_16_bits_are_not_used_where_they_are_slower():
    """A shortcut of 6.4 M MACs at 28x28: 3.1 M instructions instead of 2.3 M without XNNPACK, on a Cortex-A72."""
    image = tf.keras.Input((56, 56, 64), name="image")
    x = sample_networks.convolution(image, 64, "first")
    x = sample_networks.layers.AveragePooling2D(2)(x)
    x = sample_networks.layers.Conv2D(128, 1, use_bias=False, name="short")(x)
    x = sample_networks.convolution(x, 64, "conv")
    lifted = lift(Reference(tf.keras.Model(image, x)))
    options = with_forms(Options(weights="int8"), lifted)
    assert (options.in_16_bits, options.in_32_bits) == ((), ("short",))


def test_groups_are_not_stored_in_16_bits_where_that_is_slower():
    """9·32·64 weights on 32x32 places: 18.9 M MACs at 0.48 instead of 0.35 instructions each."""
    image = tf.keras.Input((32, 32, 64), name="image")
    x = sample_networks.convolution(image, 64, "first")
    x = sample_networks.layers.Conv2D(64, 3, padding="same", groups=2, name="groups")(x)
    lifted = lift(Reference(tf.keras.Model(image, sample_networks.convolution(x, 64, "last"))))
    options = with_forms(Options(weights="int8"), lifted)
    assert (options.in_16_bits, options.in_32_bits) == ((), ("groups",))


def test_large_dense_layers_are_stored_in_8_bits():
    """16 bits would take a MUL of 256·512 weights in each inference, 0.28 M instructions, and the product 0.06 M."""
    vector = tf.keras.Input((256,), name="vector")
    x = sample_networks.layers.Dense(512, name="large")(vector)
    x = layers.BinaryDense(32, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="binary")(x)
    x = sample_networks.layers.Dense(32, name="small")(x)
    x = layers.BinaryDense(32, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="last")(x)
    options = with_forms(Options(weights="int8"), lift(Reference(tf.keras.Model(vector, x))))
    assert (options.in_16_bits, options.in_32_bits) == (("small",), ())


@pytest.mark.slow
def test_scales_before_dense_layers_are_not_rounded_with_the_weights(tmp_path):
    """Batch normalization right before dense layers: after a binary one, after a mean, and read by two layers."""
    image = tf.keras.Input((8, 8, 32), name="image")
    x = sample_networks.layers.BatchNormalization()(sample_networks.convolution(image, 32, "conv"))
    x = sample_networks.layers.BatchNormalization()(sample_networks.layers.GlobalAveragePooling2D()(x))
    y = layers.BinaryDense(32, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="binary")(x)
    y = sample_networks.layers.BatchNormalization()(y)
    ends = [sample_networks.layers.Dense(16, name=name)(value) for name, value in (("a", x), ("b", x), ("c", y))]
    z = sample_networks.layers.BatchNormalization()(sample_networks.convolution(image, 32, "other"))
    ends.append(sample_networks.layers.Dense(16, name="d")(z))
    model = sample_networks.shaken(tf.keras.Model(image, ends))
    artifact = convert(model, tmp_path / "model.tflite", sample_networks.images(model), weights="int8")
    file = flatbuffer.read(artifact.path)
    stored = {tensor.name: tensor.value() for tensor in file.tensors if tensor.dtype == "int8"}
    for name in "abcd":
        kernel = model.get_layer(name).kernel.numpy().T
        levels = np.round(kernel / (np.abs(kernel).max(1, keepdims=True) / np.float32(127)))
        np.testing.assert_array_equal(stored[f"{name}/kernel"].reshape(levels.shape), levels)
    # A MAXIMUM behind the mean, which both of its readers share; binary layers absorb the other scales.
    assert artifact.audit.operators["MAXIMUM"] == 1
    assert artifact.audit.operators["MUL"] == 1
    assert verify(model, artifact.path, sample_networks.images(model)).passed


def test_layers_without_signs_behind_them_are_stored_in_8_bits():
    image = tf.keras.Input((8, 8, 64), name="image")
    x = sample_networks.convolution(image, 64, "conv")
    x = sample_networks.layers.Conv2D(64, 1, use_bias=False, name="mixed")(x)
    model = tf.keras.Model(image, sample_networks.layers.Conv2D(8, 1, name="head")(x))
    assert before_signs(lift(Reference(model))) == ()


def test_a_file_equals_keras_with_rounded_weights(model, artifact):
    assert artifact.parity.passed
    assert artifact.parity.rounding.top1_agreement > 0.97
    again = verify(model, artifact.path, sample_networks.images(model))
    assert again.passed
    assert again.rounding == artifact.parity.rounding
    assert "rounding the weights to int8" in str(again)


@pytest.mark.parametrize(("layer", "dtype", "largest"), [("short", "int16", 32767), ("logits", "int8", 127)])
def test_each_output_channel_has_a_scale_of_its_own(layer, dtype, largest, artifact, model):
    file = flatbuffer.read(artifact.path)
    stored = {tensor.name: tensor for tensor in file.tensors if tensor.dtype in ("int8", "int16")}
    assert set(stored) == {"short/kernel", "mix/kernel", "logits/kernel"}
    tensor = stored[f"{layer}/kernel"]
    assert tensor.dtype == dtype
    integers = tensor.value().reshape(tensor.shape[0], -1).astype(np.int64)
    assert np.abs(integers).max(1).tolist() == [largest] * tensor.shape[0]
    kernel = model.get_layer(layer).kernel.numpy().reshape(-1, tensor.shape[0]).T
    scales = np.abs(kernel).max(1, keepdims=True) / largest
    assert np.abs(integers * scales - kernel).max() <= scales.max() / 2 * 1.01


@pytest.mark.slow
@pytest.mark.parametrize("in_16_bits", [(), ("stem", "short")])
def test_files_with_fewer_bits_still_verify(in_16_bits, model):
    """Earlier versions of kbnn stored all weights in 8 bits, or the stem in 16."""
    file = sample_networks.deployed(model, weights="int8", in_16_bits=in_16_bits)
    parity = sample_networks.parity(model, stored_as_int8(file, in_16_bits))
    assert parity.passed
    assert parity.rounding.max_abs_difference > 0


def test_a_changed_weight_is_caught(model, artifact):
    changed = flatbuffer.tree(flatbuffer.read(artifact.path).data)
    tensor = next(t for t in changed.subgraphs[0].tensors if t.name == b"short/kernel")
    changed.buffers[tensor.buffer].data = np.roll(changed.buffers[tensor.buffer].data, 2)
    parity = sample_networks.parity(model, flatbuffer.parse(flatbuffer.pack(changed)))
    assert {layer.name for layer in parity.layers if not layer.passed} == {"short"}


def test_channels_of_zeros_stay_zero(bireal):
    reference = Reference(bireal)
    (name,) = [n for n in reference_for(reference, Options(weights="int8"))._replaced if "stem" in n]
    kernel = reference.constants([name])[0].copy()
    kernel[..., 3] = 0
    changed = reference_for(reference.with_constants({name: kernel}), Options(weights="int8"))
    assert not np.any(changed.constants([name])[0][..., 3])
