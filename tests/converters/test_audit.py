"""`inspect`: what a file holds, whoever made it."""

import json

import larq as lq
import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn.cli.command import to_json
from kbnn.converters import inspect
from kbnn.converters.baseline import export_float, export_int8
from kbnn.converters.tflite.audit import audit
from kbnn.errors import KbnnError, UsageError


def test_counts_of_a_network_worked_out_by_hand(bireal_path):
    found = inspect(bireal_path)
    assert found.size_bytes == bireal_path.stat().st_size
    assert found.operators == {
        "ADD": 2,
        "AVERAGE_POOL_2D": 1,
        "CONV_2D": 2,
        "FULLY_CONNECTED": 1,
        "LceBconv2d": 2,
        "LceQuantize": 2,
        "MEAN": 1,
    }
    assert [c.macs for c in found.binary_convolutions] == [12 * 12 * 9 * 32 * 32, 6 * 6 * 9 * 32 * 64]
    assert [c.kernel for c in found.binary_convolutions] == [(3, 3, 32, 32), (3, 3, 32, 64)]
    assert [c.strides for c in found.binary_convolutions] == [(1, 1), (2, 2)]
    assert [c.bits for c in found.binary_convolutions] == [1, 1]
    assert [c.macs for c in found.float_convolutions] == [12 * 12 * 9 * 3 * 32, 6 * 6 * 32 * 64, 64 * 10]
    assert found.float_macs == 12 * 12 * 9 * 3 * 32 + 6 * 6 * 32 * 64 + 64 * 10
    assert found.binary_share == found.binary_macs / (found.binary_macs + found.float_macs)
    assert found.silent_fallbacks == []
    assert found.pairs == 0


def test_layers_bear_their_names(bireal_path):
    found = inspect(bireal_path)
    assert [c.name for c in found.binary_convolutions] == ["conv1", "conv2"]
    assert [c.name for c in found.float_convolutions] == ["stem", "short", "logits"]


def test_layers_of_files_that_others_made_bear_their_names(bireal):
    found = audit(sample_networks.raw(bireal))
    assert [c.name for c in found.binary_convolutions] == ["conv1", "conv2"]
    assert {c.name for c in found.float_convolutions} == {"stem", "short", "logits"}


def test_layers_of_stock_files_bear_their_names(bireal, tmp_path):
    export_int8(bireal, tmp_path / "int8.tflite", sample_networks.images(bireal, 4))
    found = inspect(tmp_path / "int8.tflite")
    assert {c.name for c in found.float_convolutions} == {"stem", "conv1", "conv2", "short", "logits"}
    assert [fallback.partition(":")[0] for fallback in found.silent_fallbacks] == ["conv1", "conv2"]


def test_prints_as_a_table_and_dumps_as_json(bireal_path):
    found = inspect(bireal_path)
    assert "LceBconv2d" in str(found)
    assert json.loads(json.dumps(to_json(found)))["binary_share"] == found.binary_share


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_and_channels_that_do_not_fill_a_word(groups):
    channels = 40 if groups == 1 else 64
    layer = lq.layers.QuantConv2D(64, 3, groups=groups, **sample_networks.BINARY)
    file = sample_networks.raw(sample_networks.single(layer, (6, 6, channels)))
    (convolution,) = audit(file).binary_convolutions
    assert convolution.groups == groups
    assert convolution.kernel == (3, 3, channels // groups, 64)
    assert convolution.macs == 36 * 9 * channels // groups * 64


def per_input_channel(kernel):
    return lq.math.sign(kernel) * tf.reduce_mean(tf.abs(kernel), axis=[0, 1, 3], keepdims=True)


@pytest.mark.parametrize(
    ("layer", "evidence"),
    [
        (
            lambda: lq.layers.QuantConv2D(8, 3, **{**sample_networks.BINARY, "kernel_quantizer": per_input_channel}),
            "CONV_2D reads 1-bit values that were unpacked to float",
        ),
        (
            lambda: lq.layers.QuantDense(8, input_quantizer="ste_sign", kernel_quantizer="ste_sign"),
            "FULLY_CONNECTED reads 1-bit values that were unpacked to float",
        ),
        (
            lambda: lq.layers.QuantDepthwiseConv2D(3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign"),
            "DEPTHWISE_CONV_2D reads 1-bit values that were unpacked to float",
        ),
        (
            lambda: lq.layers.QuantConv2D(8, 3, **{**sample_networks.BINARY, "input_quantizer": tf.sign}),
            "CONV_2D has the kernel of a 1-bit layer, but its input is no sign",
        ),
    ],
    ids=["scale per input channel", "dense", "depthwise", "tf.sign"],
)
def test_silent_fallbacks_are_found(layer, evidence):
    found = audit(sample_networks.raw(sample_networks.single(layer())))
    assert found.binary_convolutions == []
    assert len(found.silent_fallbacks) == 1
    assert evidence in found.silent_fallbacks[0]


def test_a_first_layer_with_a_binary_kernel_is_no_fallback():
    """Larq's networks give the real-valued image a 1-bit kernel."""
    layer = lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    found = audit(sample_networks.raw(sample_networks.single(layer, (6, 6, 3))))
    assert found.silent_fallbacks == []


def test_a_plain_file_has_no_binary_share(bireal, tmp_path):
    export_float(sample_networks.single(tf.keras.layers.Conv2D(4, 3)), tmp_path / "plain.tflite")
    found = inspect(tmp_path / "plain.tflite")
    assert found.binary_share == 0.0
    assert len(found.float_convolutions) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\x00\x01", "does not begin as a TFLite file does"),
        (b"hello, world", "does not begin as a TFLite file does"),
        (b"\x08\x00\x00\x00TFL3" + b"\xff" * 40, "truncated or damaged"),
    ],
    ids=["empty", "two bytes", "text", "damaged"],
)
def test_files_that_are_none(content, message, tmp_path):
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(KbnnError, match=message):
        inspect(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        inspect(tmp_path / "none.tflite")


def test_a_folder(tmp_path):
    with pytest.raises(UsageError, match="Is a directory"):
        inspect(tmp_path)


@pytest.mark.parametrize("share", np.linspace(0.02, 0.98, 13))
def test_truncated_files(share, bireal_path, tmp_path):
    data = bireal_path.read_bytes()
    path = tmp_path / "truncated.tflite"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(KbnnError, match=r"cannot (read|audit)"):
        inspect(path)
