"""Conversion of everything real-valued to int8, with the ranges of calibration images."""

import larq as lq
import numpy as np
import pytest
import sample_networks
import tensorflow as tf
from test_hostile_files import mutated, refusals

from kbnn import layers, methods
from kbnn.converters import ConversionError, convert, verify
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.verify import verification
from kbnn.errors import KbnnError, UsageError

keras = tf.keras.layers


def calibrated(model, path, **options):
    calibration = sample_networks.images(model, 64, seed=2)
    options = {"device": "microcontroller", **options}
    return convert(model, path, sample_networks.images(model), calibration=calibration, **options)


@pytest.fixture(scope="module")
def artifact(bireal, tmp_path_factory):
    return calibrated(bireal, tmp_path_factory.mktemp("int8") / "model.tflite")


@pytest.mark.slow
def test_only_the_output_is_float(artifact):
    operators = flatbuffer.read(artifact.path).operators
    block = ["LceQuantize", "LceBconv2d", "ADD"]
    short = ["AVERAGE_POOL_2D", "CONV_2D"]
    names = ["QUANTIZE", "CONV_2D", *block, *short, *block, "MEAN", "FULLY_CONNECTED", "DEQUANTIZE"]
    assert sorted(operator.name for operator in operators) == sorted(names)
    computed = [tensor.dtype for operator in operators for tensor in operator.outputs]
    assert computed.count("float32") == 1
    assert {c.name: c.bits for c in artifact.audit.float_convolutions} == {"stem": 8, "short": 8, "logits": 8}


@pytest.mark.slow
def test_a_file_is_compared_with_its_rounded_graph(artifact, bireal):
    assert artifact.parity.in_int8
    # Random weights leave small margins between ten classes; trained networks agree in most images.
    assert 0.6 < artifact.parity.top1_agreement < 1.0
    assert "equal to Keras rounded to int8" in str(artifact)
    again = verify(bireal, artifact.path, sample_networks.images(bireal))
    assert again.passed
    compared = {layer.name for layer in again.layers}
    assert {"stem", "conv1", "conv1_bn", "add1", "short", "conv2_bn", "add2", "pool", "logits"} <= compared


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "departs"), [(b"short/kernel", "short"), (b"conv2/multiplier", "conv2_bn")])
def test_a_changed_constant_is_caught_and_its_layer_named(kernel, departs, artifact, bireal):
    model = flatbuffer.tree(flatbuffer.read(artifact.path).data)
    tensor = next(t for t in model.subgraphs[0].tensors if t.name == kernel)
    model.buffers[tensor.buffer].data = np.roll(model.buffers[tensor.buffer].data, 4)
    parity = sample_networks.parity(bireal, flatbuffer.parse(flatbuffer.pack(model)))
    assert {layer.name for layer in parity.layers if not layer.passed} == {departs}


def test_the_same_model_and_images_give_the_same_bytes(artifact, bireal, tmp_path):
    again = calibrated(bireal, tmp_path / "again.tflite")
    assert flatbuffer.read(again.path).data == flatbuffer.read(artifact.path).data


@pytest.mark.slow
def test_damaged_files_are_errors(artifact, bireal):
    data, generator = flatbuffer.read(artifact.path).data, np.random.default_rng(0)
    mutants = [mutated(data, generator) for _ in range(40)]
    reference, images = Reference(bireal), sample_networks.images(bireal, 2)
    found = refusals(lambda data: verification.compare(reference, flatbuffer.parse(data), images), mutants)
    assert None in found


@pytest.mark.parametrize("limits", [(1.0, 2.0), (0.0, 0.0), (-1.0, float("nan")), (-float("inf"), 1.0)])
def test_invalid_limits_of_a_damaged_file_are_refused(limits):
    with pytest.raises(ValueError, match="limits that do not include zero"):
        Options.from_json({"limits": {"stem": limits}})


def test_calibration_with_the_wrong_images_is_refused(bireal, tmp_path):
    images = sample_networks.images(bireal)
    # It may be made in a scratch folder, so the message names the model.
    named = (
        r"^the file of model 'bireal' would not compute .*rounding to int8 leaves .*% of the images in Keras's class"
        r".*rounding may be the reason: leave out calibration, which keeps the network in float$"
    )
    with pytest.raises(ConversionError, match=named):
        convert(bireal, tmp_path / "model.tflite", images, calibration=1000 * images, device="microcontroller")
    assert list(tmp_path.iterdir()) == []


def test_int8_weights_with_calibration_are_refused(bireal, tmp_path):
    with pytest.raises(UsageError, match="calibration makes weights int8 too"):
        calibrated(bireal, tmp_path / "model.tflite", weights="int8")


def rectified(x):
    """A block of ReActNet: a PReLU, and constants that are added to a residual stream."""
    method = methods.get("react")
    y = keras.BatchNormalization(name="bn1")(method.convolution(x, 64, 3, name="conv1"))
    return method.convolution(method.activation(keras.Add(name="add")([x, y]), name="act"), 64, 3, name="conv2")


def pooled(x):
    """Clipping that is fused into pooling, and pooling of bits."""
    layer = methods.get("bnn")
    x = keras.MaxPooling2D(2, name="pool1")(layer.convolution(x, 64, 3, name="conv1"))
    x = layer.convolution(keras.BatchNormalization(name="bn1")(x), 64, 3, name="conv2")
    x = keras.BatchNormalization(name="bn2")(x)
    x = keras.Activation("hard_tanh", name="clip")(keras.MaxPooling2D(2, name="pool2")(x))
    return keras.AveragePooling2D(2, name="pool3")(x)


def shuffled(x):
    """Groups that are shuffled, split and concatenated, and padded channels."""
    layer = methods.get("bireal")
    y = layers.ChannelShuffle(2, name="shuffle")(keras.BatchNormalization(name="bn")(x))
    y = layer.convolution(y, 32, 3, groups=2, name="grouped")
    y = layers.ZeroPadChannels(64, side="after", name="pad")(keras.BatchNormalization(name="bn1")(y))
    return layers.GroupNormalization(name="ln")(keras.Add(name="add")([x, y]))


def resized(x):
    """Interpolation, and the smaller one of two values, which have the levels of what they read."""
    y = methods.get("bireal").convolution(x, 64, 3, name="conv1")
    y = keras.UpSampling2D(interpolation="bilinear", name="up")(keras.BatchNormalization(name="bn1")(y))
    x = keras.Minimum(name="least")([y, keras.UpSampling2D(name="up_x")(x)])
    return methods.get("bireal").convolution(x, 64, 3, name="conv2")


RECTIFIERS = {
    "activation": lambda x: keras.Activation("relu")(x),
    "layer": lambda x: keras.ReLU()(x),
    "up to 6": lambda x: keras.ReLU(6.0)(x),
    "up to 1.5": lambda x: keras.ReLU(1.5)(x),
    "function": lambda x: tf.nn.relu(x),
    "function up to 6": lambda x: tf.nn.relu6(x),
    "lambda": lambda x: keras.Lambda(tf.nn.relu)(x),
    "maximum": lambda x: tf.maximum(x, 0.0),
    "clip": lambda x: tf.clip_by_value(x, 0.0, 6.0),
    "clip on both sides": lambda x: tf.clip_by_value(x, -0.5, 2.0),
    "own function": lambda x: keras.Lambda(lambda y: tf.minimum(1.5, tf.keras.activations.relu(y)))(x),
    "leaky": lambda x: keras.LeakyReLU(0.1)(x),
}


@pytest.mark.slow
@pytest.mark.parametrize("rectifier", RECTIFIERS.values(), ids=RECTIFIERS)
def test_every_form_of_relu_is_fused(rectifier, tmp_path):
    image = tf.keras.Input((8, 8, 3), name="image")
    method = methods.get("bireal")
    x = keras.BatchNormalization(name="stem_bn")(keras.Conv2D(32, 3, padding="same", name="stem")(image))
    x = rectifier(x)
    y = keras.BatchNormalization(name="bn1")(method.convolution(x, 32, 3, name="conv1"))
    x = rectifier(keras.Add(name="add")([x, y]))
    x = keras.Dense(4, name="logits")(keras.GlobalAveragePooling2D(name="pool")(x))
    artifact = calibrated(sample_networks.shaken(tf.keras.Model(image, x)), tmp_path / "model.tflite")
    assert artifact.parity.passed
    assert artifact.audit.operators["DEQUANTIZE"] == 1


def frames(x):
    """Parts of an image as samples of their own."""
    x = tf.transpose(tf.reshape(x, (-1, 2, 4, 2, 4, 64)), (0, 1, 3, 2, 4, 5))
    x = methods.get("bireal").convolution(tf.reshape(x, (-1, 4, 4, 64)), 64, 3, name="conv1")
    return tf.reshape(keras.BatchNormalization(name="bn1")(x), (-1, 4, 16, 64))


def enlarged(image):
    """Bilinear interpolation makes the largest values smaller, but has the same levels before and after it."""
    x = keras.Conv2D(32, 3, padding="same", name="scaled")(image)
    x = keras.Multiply(name="gated")([x, keras.Activation("sigmoid", name="gate")(x)])
    x = keras.UpSampling2D(2, interpolation="bilinear", name="enlarged")(x)
    return sample_networks.convolution(x, 32, "conv")


@pytest.mark.core("shuffled")
@pytest.mark.parametrize("network", [rectified, pooled, shuffled, frames, enlarged, resized])
def test_the_building_blocks_of_networks(network, tmp_path):
    image = tf.keras.Input((8, 8, 3), name="image")
    x = network(keras.BatchNormalization(name="stem_bn")(keras.Conv2D(64, 3, padding="same", name="stem")(image)))
    x = keras.Dense(4, name="logits")(keras.GlobalAveragePooling2D(name="pool")(x))
    model = sample_networks.shaken(tf.keras.Model(image, x))
    artifact = calibrated(model, tmp_path / "model.tflite", kernel="portable")
    assert artifact.parity.kernel_bits_equal
    assert all(c.bits == 8 for c in artifact.audit.float_convolutions)
    # Both normalizations are computed in float.
    expected = 3 if network is shuffled else 1
    assert artifact.audit.operators["DEQUANTIZE"] == expected


@pytest.mark.slow
def test_calculations_between_layers(tmp_path):
    """Levels that the converter makes equal, for a choice and for parts with constants; and products of matrices."""
    image = tf.keras.Input((8, 8, 3), name="image")
    x = keras.BatchNormalization(name="stem_bn")(keras.Conv2D(64, 3, padding="same", name="stem")(image))
    x = tf.where(x > 0.5, 0.1 * x, tf.maximum(x, -0.5))
    x = tf.concat([x, tf.zeros_like(x)], -1)[..., ::2]
    x = tf.where(x > 0.5, 1.0, x)
    kernel = tf.constant(np.random.default_rng(0).normal(size=(64, 64)), tf.float32)
    x = tf.einsum("dc,bhwc->bhwd", kernel, tf.einsum("bhwc,cd->bhwd", x, kernel))
    x = methods.get("bireal").convolution(x, 64, 3, name="conv1")
    x = keras.Conv1D(64, 3, padding="same", name="row")(keras.Reshape((64, 64))(keras.BatchNormalization()(x)))
    x = methods.get("bireal").convolution(keras.Reshape((8, 8, 64))(x), 64, 3, name="conv2")
    x = keras.Dense(4, name="logits")(keras.GlobalAveragePooling2D(name="pool")(x))
    artifact = calibrated(sample_networks.shaken(tf.keras.Model(image, x)), tmp_path / "model.tflite")
    assert len(artifact.audit.binary_convolutions) == 2
    assert {"tf.einsum", "tf.einsum_1", "row"} <= {layer.name for layer in artifact.parity.layers}
    assert artifact.audit.float_macs == 64 * (27 * 64 + 2 * 64 * 64 + 3 * 64 * 64) + 64 * 4


def test_values_between_two_levels_before_a_mean(tmp_path):
    """Each is -9 or 9, halfway between two levels, and the mean has finer levels: neither may count as different."""
    image = tf.keras.Input((8, 8, 32), name="image")
    depthwise = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign", "depthwise_initializer": "ones"}
    x = lq.layers.QuantDepthwiseConv2D(3, name="depthwise", **depthwise)(image)
    y = methods.get("bireal").convolution(image, 32, 3, name="binary")
    model = tf.keras.Model(image, [keras.GlobalAveragePooling2D(name=name)(z) for name, z in (("mean", x), ("y", y))])
    edges = np.random.default_rng(0).integers(3, 6, (32, 1, 1, 32))
    images = np.where(np.arange(8).reshape(1, 1, 8, 1) < edges, -1, 1) * np.ones((1, 8, 1, 1), np.float32)
    path = tmp_path / "model.tflite"
    options = {"device": "microcontroller", "allow_float": ["depthwise"]}
    parity = convert(model, path, images, calibration=images, **options).parity
    assert {"depthwise", "mean"} <= {layer.name for layer in parity.layers}


@pytest.mark.slow
def test_zeros_around_an_image_run_on_the_reference_kernel_only(tmp_path):
    """Other kernels do not pad with zeros where the output is int8; it does so only for an even number of channels."""
    for channels in (4, 3):
        changes = {**sample_networks.BINARY, "pad_values": 0.0, "kernel_quantizer": "ste_sign"}
        layer = lq.layers.QuantConv2D(32, 3, name="padded", **changes)
        model = sample_networks.single(layer, (8, 8, channels))
        if channels == 4:
            artifact = calibrated(model, tmp_path / "model.tflite")
            assert [run.kernel for run in artifact.parity.runs if run.refused is None] == ["reference"]
            assert "LCE's default kernel refuses it: this kernel does not pad with zeros where" in str(artifact)
        else:
            with pytest.raises(
                KbnnError, match=r"no kernel runs .*: use pad_values=1\.0 \(padded with zeros: 'padded'\)"
            ):
                calibrated(model, tmp_path / "model.tflite")
