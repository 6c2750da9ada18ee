"""`inspect` on files made by kbnn, LCE and TensorFlow Lite."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import attacks
import larq as lq
import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn.cli.command import to_json
from kbnn.converters import inspect
from kbnn.converters.baseline import export_float, export_int8
from kbnn.converters.tflite import estimate, flatbuffer
from kbnn.converters.tflite.audit import audit
from kbnn.converters.tflite.estimate import Load, instructions
from kbnn.converters.tflite.int8_weights import stored_as_int8
from kbnn.errors import KbnnError, UsageError


def test_counts_of_a_network_worked_out_by_hand(bireal_path: Path):
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


def test_layers_are_named(bireal_path: Path):
    found = inspect(bireal_path)
    assert [c.name for c in found.binary_convolutions] == ["conv1", "conv2"]
    assert [c.name for c in found.float_convolutions] == ["stem", "short", "logits"]


@pytest.mark.slow
def test_layers_of_files_from_plain_larq_are_named(bireal: tf.keras.Model):
    found = audit(sample_networks.raw(bireal))
    assert [c.name for c in found.binary_convolutions] == ["conv1", "conv2"]
    assert {c.name for c in found.float_convolutions} == {"stem", "short", "logits"}


def test_layers_of_stock_files_are_named(bireal: tf.keras.Model, tmp_path: Path):
    export_int8(bireal, tmp_path / "int8.tflite", sample_networks.images(bireal, 4))
    found = inspect(tmp_path / "int8.tflite")
    assert {c.name for c in found.float_convolutions} == {"stem", "conv1", "conv2", "short", "logits"}
    assert [fallback.partition(":")[0] for fallback in found.silent_fallbacks] == ["conv1", "conv2"]


def test_prints_as_a_table_and_dumps_as_json(bireal_path: Path):
    found = inspect(bireal_path)
    assert "LceBconv2d" in str(found)
    assert json.loads(json.dumps(to_json(found)))["binary_share"] == found.binary_share


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_and_channels_that_do_not_fill_a_word(groups: int):
    channels = 40 if groups == 1 else 64
    layer = lq.layers.QuantConv2D(64, 3, groups=groups, **sample_networks.BINARY)
    file = sample_networks.raw(sample_networks.single(layer, (6, 6, channels)))
    (convolution,) = audit(file).binary_convolutions
    assert convolution.groups == groups
    assert convolution.kernel == (3, 3, channels // groups, 64)
    assert convolution.macs == 36 * 9 * channels // groups * 64


def per_input_channel(kernel: tf.Tensor):
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
            "CONV_2D has the kernel of a 1-bit layer, but its input is not a sign",
        ),
    ],
    ids=["scale per input channel", "dense", "depthwise", "tf.sign"],
)
def test_silent_fallbacks_are_found(layer: Callable[[], tf.keras.layers.Layer], evidence: str):
    found = audit(sample_networks.raw(sample_networks.single(layer())))
    assert found.binary_convolutions == []
    assert len(found.silent_fallbacks) == 1
    assert evidence in found.silent_fallbacks[0]


def test_a_first_layer_with_a_binary_kernel_is_not_a_fallback():
    """In Larq's networks the first layer applies a 1-bit kernel to the real-valued image."""
    layer = lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")
    found = audit(sample_networks.raw(sample_networks.single(layer, (6, 6, 3))))
    assert found.silent_fallbacks == []


def test_a_plain_file_has_no_binary_share(bireal: tf.keras.Model, tmp_path: Path):
    export_float(sample_networks.single(tf.keras.layers.Conv2D(4, 3)), tmp_path / "plain.tflite")
    found = inspect(tmp_path / "plain.tflite")
    assert found.binary_share == 0.0
    assert len(found.float_convolutions) == 1


def stock(model: tf.keras.Model):
    """The audit of a model that TensorFlow's own converter converted."""
    return audit(flatbuffer.parse(tf.lite.TFLiteConverter.from_keras_model(model).convert()))


layers = tf.keras.layers
# Layer, input shape, and the MACs of one inference by hand.
COUNTED = {
    "Conv3D": (lambda: layers.Conv3D(5, 3), (6, 8, 8, 2), 4 * 6 * 6 * 27 * 2 * 5),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(3, 2, strides=2), (3, 4, 4, 2), 3 * 4 * 4 * 8 * 2 * 3),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(5, 3, strides=2), (4, 4, 3), 4 * 4 * 9 * 3 * 5),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 3), 6 * 6 * 9 * 3 * 2),
    "grouped Conv2D": (lambda: layers.Conv2D(8, 3, groups=2), (8, 8, 4), 6 * 6 * 9 * 2 * 8),
    "Conv1D": (lambda: layers.Conv1D(7, 3), (10, 4), 8 * 3 * 4 * 7),
    "Dense of vectors": (lambda: layers.Dense(7), (5,), 5 * 7),
    "Dense of sequences": (lambda: layers.Dense(7), (6, 5), 6 * 5 * 7),
    "Dense of maps": (lambda: layers.Dense(7), (3, 4, 5), 3 * 4 * 5 * 7),
    "Dot": (lambda: layers.Lambda(lambda x: tf.matmul(x, x, transpose_b=True)), (6, 5), 6 * 6 * 5),
}


@pytest.mark.core("Dense of maps")
@pytest.mark.parametrize("name", COUNTED)
def test_macs_by_hand(name: str):
    layer, shape, macs = COUNTED[name]
    found = stock(tf.keras.Sequential([layers.Input(shape, batch_size=1), layer()]))
    assert (found.binary_macs, found.float_macs) == (0, macs)
    assert found.not_counted == {}


@pytest.mark.slow
def test_macs_of_attention():
    inputs = layers.Input((6, 8), batch_size=1)
    found = stock(tf.keras.Model(inputs, layers.MultiHeadAttention(2, 3)(inputs, inputs)))
    # Query, key, value and output projections; scores and their product with the values, per head.
    assert found.float_macs == 4 * 6 * 8 * 2 * 3 + 2 * 2 * 6 * 6 * 3


@pytest.mark.slow
def test_macs_of_recurrent_layers_are_counted_or_the_share_is_left_out():
    inputs = layers.Input((7, 4), batch_size=1)
    found = stock(tf.keras.Model(inputs, layers.LSTM(5, return_sequences=True)(inputs)))
    if found.not_counted:
        assert found.binary_share is None
        assert "not counted: WHILE 1" in str(found)
    else:
        assert found.float_macs == 7 * 4 * (4 + 5) * 5


def lstm(matrices: Sequence[tuple[int, int]]):
    """A file with one fused LSTM of the given matrices, into which TensorFlow converts the layers of some versions."""
    writer = attacks.Writer()
    buffers = [
        writer.table({0: writer.numbers(np.ones(shape, np.float32).ravel().view(np.uint8), np.uint8)})
        for shape in matrices
    ]
    tensors = [writer.tensor([1, 7, 4]), writer.tensor([1, 7, 5])]
    tensors += [writer.tensor(shape, f"w{k}", buffer=1 + k) for k, shape in enumerate(matrices)]
    operator = writer.operator([0, *range(2, 2 + len(matrices))], [1])
    return writer.file(tensors, [operator], [writer.builtin("UNIDIRECTIONAL_SEQUENCE_LSTM")], buffers, outputs=(1,))


def test_macs_of_a_fused_lstm():
    found = audit(flatbuffer.parse(lstm([(5, 4)] * 4 + [(5, 5)] * 4)))
    assert found.float_macs == 7 * 4 * (4 + 5) * 5


def test_custom_operators_are_not_counted():
    writer = attacks.Writer()
    tensors = [writer.tensor([1, 4]), writer.tensor([1, 4])]
    data = writer.file(tensors, [writer.operator([0], [1])], [writer.custom("FlexConv")], outputs=(1,))
    found = audit(flatbuffer.parse(data))
    assert found.not_counted == {"FlexConv": 1}
    assert found.binary_share is None
    assert "binary share of MACs: not known" in str(found)


def bireal18(stem: str = "float32", case: str = "few channels", short: str = "float32") -> list[Load]:
    """The operators of Bi-Real-18 at 224x224, by hand."""
    loads = [
        Load("CONV_2D", "float32", stem, case, macs=112 * 112 * 49 * 3 * 64, values=112 * 112 * 64),
        Load("MAX_POOL_2D", "float32", values=56 * 56 * 64),
        Load("MEAN", "float32", values=7 * 7 * 512),
        Load("FULLY_CONNECTED", "float32", "float32", macs=512 * 1000),
    ]
    for stage, size in enumerate((56, 28, 14, 7)):
        pixels, filters = size * size, 64 * 2**stage
        for k in range(4):
            enters = stage > 0 and k == 0
            channels = filters // 2 if enters else filters
            macs, copies = pixels * 9 * channels * filters, 9 * pixels
            loads.append(Load("LceQuantize", "float32", values=pixels * (4 if enters else 1) * channels))
            loads.append(
                Load("LceBconv2d", "bits", "bits", macs=macs, values=pixels * filters, copies=copies),
            )
            loads.append(Load("ADD", "float32", values=pixels * filters))
        if stage:
            loads.append(Load("AVERAGE_POOL_2D", "float32", values=pixels * filters // 2))
            loads.append(Load("CONV_2D", "float32", short, macs=pixels * filters // 2 * filters))
    return loads


@pytest.mark.parametrize(
    ("loads", "counted"),
    [
        (bireal18(), {"pi4": 139.6, "pi5": 136.9}),
        (bireal18(case="few channels, without XNNPACK"), {"pi4": 115.6}),
        (bireal18("int8"), {"pi4": 112.5, "pi5": 87.9}),
        (bireal18("int8", short="int8"), {"pi4": 112.9, "pi5": 84.6}),
    ],
    ids=["float", "GATHER", "hybrid stem", "hybrid stem and shortcuts"],
)
def test_estimates_agree_with_a_network_that_was_counted_with_lces_tool(loads: list[Load], counted: dict[str, float]):
    for device, millions in counted.items():
        assert sum(instructions(load)[device] or 0.0 for load in loads) == pytest.approx(1e6 * millions, rel=0.03)


def test_an_estimate_is_a_sum_of_four_costs():
    with (Path(estimate.__file__).parent / "arm_costs.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    (row,) = [row for row in rows if row["operator"] == "LceBconv2d" and not row["when"]]
    found = instructions(Load("LceBconv2d", "bits", "bits", macs=1000, values=100, copies=10))
    costs = [float(row[f"pi4_per_{unit}"]) for unit in ("mac", "value", "copy", "call")]
    assert found["pi4"] == pytest.approx(1000 * costs[0] + 100 * costs[1] + 10 * costs[2] + costs[3])
    assert instructions(Load("FlexConv")) == {"pi4": None, "pi5": None}


def test_estimates_of_a_networks_operators(bireal_path: Path):
    found = inspect(bireal_path)
    costs = {work.name: work.instructions["pi4"] for work in found.work}
    stem = Load("CONV_2D", "float32", "float32", "few channels", macs=12 * 12 * 9 * 3 * 32, values=12 * 12 * 32)
    binary = Load("LceBconv2d", "bits", "bits", "", 12 * 12 * 9 * 64 * 32, 12 * 12 * 32, 12 * 12 * 9)
    assert costs["stem"] == instructions(stem)["pi4"]
    assert costs["conv1"] == instructions(binary)["pi4"]
    assert found.instructions["pi4"] == pytest.approx(sum(costs.values()))
    assert "an estimate and not a latency" in " ".join(str(found).split())


@pytest.mark.parametrize(("size", "kernel"), [(48, "portable C++"), (32, "indirect")])
def test_groups_are_charged_for_the_kernel_that_runs_them(size: int, kernel: str):
    """48x48x64/2 values are more than LCE's fast indirect kernel takes."""
    file = sample_networks.deployed(sample_networks.single(sample_networks.grouped(64, groups=2), (size, size, 64)))
    (work,) = [work for work in audit(file).work if work.operator == "LceBconv2d"]
    # 32 channels per group fill half a word.
    macs = 2 * size * size * 9 * 32 * 64
    load = Load("LceBconv2d", "bits", "bits", kernel, macs, size * size * 64, size * size * 9)
    assert work.instructions == instructions(load)


def test_groups_that_write_bits_are_charged_for_portable_code():
    image = tf.keras.Input((8, 8, 64))
    x = sample_networks.layers.BatchNormalization()(sample_networks.grouped(64, groups=2)(image))
    x = sample_networks.convolution(x, 32, "next")
    file = sample_networks.deployed(sample_networks.shaken(tf.keras.Model(image, x)))
    work = next(work for work in audit(file).work if work.operator == "LceBconv2d")
    load = Load("LceBconv2d", "bits", "bits", "portable C++", 2 * 8 * 8 * 9 * 32 * 64, 8 * 8 * 64, 8 * 8 * 9)
    assert work.instructions == instructions(load)


def test_scaling_weights_is_charged_for_each_weight():
    image = tf.keras.Input((8, 8, 32))
    x = sample_networks.convolution(image, 32, "first")
    x = sample_networks.convolution(sample_networks.layers.Conv2D(64, 1, name="short")(x), 32, "next")
    file = sample_networks.deployed(sample_networks.shaken(tf.keras.Model(image, x)), weights="int8")
    file = stored_as_int8(file, in_16_bits=["short"])
    (work,) = [work for work in audit(file).work if work.operator == "MUL"]
    assert work.instructions == instructions(Load("MUL", "float32", values=32 * 64))


def test_operators_without_a_count_are_named():
    writer = attacks.Writer()
    tensors = [writer.tensor([1, 4]), writer.tensor([1, 4])]
    data = writer.file(tensors, [writer.operator([0], [1])], [writer.custom("FlexConv")], outputs=(1,))
    found = audit(flatbuffer.parse(data))
    assert found.not_measured == ["FlexConv"]
    assert found.instructions_text == "Pi 4 (Cortex-A72) 0, Pi 5 (Cortex-A76) 0, without FlexConv, not measured"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\x00\x01", "it is not a TFLite file"),
        (b"hello, world", "it is not a TFLite file"),
        (b"\x08\x00\x00\x00TFL3" + b"\xff" * 40, "truncated or damaged"),
    ],
    ids=["empty", "two bytes", "text", "damaged"],
)
def test_files_that_are_not_tflite(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(KbnnError, match=message):
        inspect(path)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        inspect(tmp_path / "none.tflite")


def test_a_folder(tmp_path: Path):
    with pytest.raises(UsageError, match="Is a directory"):
        inspect(tmp_path)


@pytest.mark.parametrize("share", np.linspace(0.02, 0.98, 13))
def test_truncated_files(share: float, bireal_path: Path, tmp_path: Path):
    data = bireal_path.read_bytes()
    path = tmp_path / "truncated.tflite"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(KbnnError, match=r"cannot (read|audit)"):
        inspect(path)
