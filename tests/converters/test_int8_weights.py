"""Real-valued weights as int8."""

import numpy as np
import pytest
import sample_networks

from kbnn.converters import convert, verify
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.verify.verification import reference_for


@pytest.fixture(scope="module")
def artifact(bireal, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    return convert(bireal, path, sample_networks.images(bireal), weights="int8")


def test_the_real_kernels_take_a_quarter(artifact, bireal_file):
    assert {c.name: c.bits for c in artifact.audit.float_convolutions} == {"stem": 8, "short": 8, "logits": 8}
    real = 4 * (27 * 32 + 32 * 64 + 64 * 10)
    saved = bireal_file.size_bytes - artifact.size_bytes
    assert 0.6 * real < saved < 0.75 * real


def test_it_is_equal_to_keras_with_rounded_weights(bireal, artifact):
    assert artifact.parity.passed
    assert artifact.parity.rounding.top1_agreement > 0.9
    again = verify(bireal, artifact.path, sample_networks.images(bireal))
    assert again.passed
    assert again.rounding == artifact.parity.rounding
    assert "rounding the weights to int8" in str(again)


def test_each_output_channel_has_a_scale_of_its_own(artifact, bireal):
    file = flatbuffer.read(artifact.path)
    stored = {tensor.name: tensor for tensor in file.tensors if tensor.dtype == "int8"}
    assert set(stored) == {"stem/kernel", "short/kernel", "logits/kernel"}
    for tensor in stored.values():
        assert len(tensor.scales) == tensor.shape[0]
        assert np.abs(tensor.value().reshape(tensor.shape[0], -1)).max(1).tolist() == [127] * tensor.shape[0]
    kernel = bireal.get_layer("logits").kernel.numpy()
    scales = np.array(stored["logits/kernel"].scales)
    assert np.abs(stored["logits/kernel"].value() * scales[:, np.newaxis] - kernel.T).max() <= scales.max() / 2 * 1.001


def test_a_changed_weight_is_caught(bireal, artifact):
    model = flatbuffer.tree(flatbuffer.read(artifact.path).data)
    tensor = next(t for t in model.subgraphs[0].tensors if t.name == b"short/kernel")
    model.buffers[tensor.buffer].data = np.roll(model.buffers[tensor.buffer].data, 1)
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
