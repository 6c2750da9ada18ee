"""Storing real-valued weights as int8 or int16."""

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn.converters import convert, verify
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.int8_weights import before_signs, stored_as_int8
from kbnn.converters.verify.verification import reference_for


@pytest.fixture(scope="module")
def artifact(bireal, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    return convert(bireal, path, sample_networks.images(bireal), weights="int8")


def test_the_real_kernels_take_a_quarter_or_half(artifact, bireal_file):
    """The stem's values reach a sign; those of the last shortcut and the classifier do not."""
    assert {c.name: c.bits for c in artifact.audit.float_convolutions} == {"stem": 16, "short": 8, "logits": 8}
    halves, quarters = 27 * 32, 32 * 64 + 64 * 10
    saved = bireal_file.size_bytes - artifact.size_bytes
    overhead = 2000  # The operators, their tensors and scales.
    assert 2 * halves + 3 * quarters - overhead < saved < 2 * halves + 3 * quarters


def test_layers_without_signs_behind_them_take_a_quarter():
    image = tf.keras.Input((8, 8, 64), name="image")
    x = sample_networks.convolution(image, 64, "conv")
    x = sample_networks.layers.Conv2D(64, 1, use_bias=False, name="mixed")(x)
    model = tf.keras.Model(image, sample_networks.layers.Conv2D(8, 1, name="head")(x))
    assert before_signs(lift(Reference(model))) == ()


def test_it_is_equal_to_keras_with_rounded_weights(bireal, artifact):
    assert artifact.parity.passed
    assert artifact.parity.rounding.top1_agreement > 0.97
    again = verify(bireal, artifact.path, sample_networks.images(bireal))
    assert again.passed
    assert again.rounding == artifact.parity.rounding
    assert "rounding the weights to int8" in str(again)


@pytest.mark.parametrize(("layer", "dtype", "largest"), [("stem", "int16", 32767), ("logits", "int8", 127)])
def test_each_output_channel_has_a_scale_of_its_own(layer, dtype, largest, artifact, bireal):
    file = flatbuffer.read(artifact.path)
    stored = {tensor.name: tensor for tensor in file.tensors if tensor.dtype in ("int8", "int16")}
    assert set(stored) == {"stem/kernel", "short/kernel", "logits/kernel"}
    tensor = stored[f"{layer}/kernel"]
    assert tensor.dtype == dtype
    integers = tensor.value().reshape(tensor.shape[0], -1).astype(np.int64)
    assert np.abs(integers).max(1).tolist() == [largest] * tensor.shape[0]
    kernel = bireal.get_layer(layer).kernel.numpy().reshape(-1, tensor.shape[0]).T
    if layer == "stem":
        normalization = bireal.get_layer("stem_bn")
        kernel = kernel * (normalization.gamma / tf.sqrt(normalization.moving_variance + 1e-3)).numpy()[:, np.newaxis]
    scales = np.abs(kernel).max(1, keepdims=True) / largest
    assert np.abs(integers * scales - kernel).max() <= scales.max() / 2 * 1.01


def test_files_with_all_weights_in_8_bits_still_verify(bireal, tmp_path):
    """Earlier versions of kbnn stored all weights in 8 bits."""
    file = sample_networks.deployed(sample_networks.bireal(), weights="int8")
    parity = sample_networks.parity(bireal, stored_as_int8(file))
    assert parity.passed
    assert parity.rounding.max_abs_difference > 0


def test_a_changed_weight_is_caught(bireal, artifact):
    model = flatbuffer.tree(flatbuffer.read(artifact.path).data)
    tensor = next(t for t in model.subgraphs[0].tensors if t.name == b"short/kernel")
    model.buffers[tensor.buffer].data = np.roll(model.buffers[tensor.buffer].data, 2)
    parity = sample_networks.parity(bireal, flatbuffer.parse(flatbuffer.pack(model)))
    assert {layer.name for layer in parity.layers if not layer.passed} == {"short"}


def test_channels_of_zeros_stay_zero(bireal):
    from kbnn.converters.passes import Options

    reference = Reference(bireal)
    (name,) = [n for n in reference_for(reference, Options(weights="int8"))._replaced if "stem" in n]
    kernel = reference.constants([name])[0].copy()
    kernel[..., 3] = 0
    changed = reference_for(reference.with_constants({name: kernel}), Options(weights="int8"))
    assert not np.any(changed.constants([name])[0][..., 3])
