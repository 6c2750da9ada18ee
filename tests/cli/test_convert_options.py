"""The options of `kbnn convert`, in this process."""

import json

import larq as lq
import pytest
import tensorflow as tf
from click.testing import CliRunner

from kbnn import layers
from kbnn.cli import evaluate, inspect, verify
from kbnn.cli.convert import command
from kbnn.converters.tflite import flatbuffer, metadata

keras = tf.keras.layers


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A grouped binary convolution and a depthwise one, which LCE does not support."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.BatchNormalization()(keras.Conv2D(64, 3, padding="same", name="stem")(image))
    x = layers.BinaryConv2D(64, 3, groups=2, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="grouped")(x)
    x = keras.BatchNormalization()(x)
    depthwise = {"input_quantizer": "ste_sign", "depthwise_quantizer": "ste_sign", "name": "depthwise"}
    x = keras.GlobalAveragePooling2D()(lq.layers.QuantDepthwiseConv2D(3, **depthwise)(x))
    path = tmp_path_factory.mktemp("model") / "model.keras"
    tf.keras.Model(image, keras.Dense(10, name="logits")(x), name="grouped").save(path)
    return path


INT8 = ("--int8", "--device", "microcontroller")


def convert(model, path, *options):
    return CliRunner().invoke(command, [str(model), "-o", str(path), *options])


@pytest.mark.slow
def test_a_refused_layer_is_named_and_no_file_is_left(model, tmp_path):
    done = convert(model, tmp_path / "model.tflite")
    assert done.exit_code == 1
    assert "1 of 2 1-bit layers cannot be bitpacked: 'depthwise': LCE has no binary" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "convolutions", "bits"),
    [((), 1, 32), (("--kernel", "portable"), 2, 32), (("--weights", "int8"), 1, 8), (INT8, 1, 8)],
    ids=["default", "portable", "int8 weights", "int8"],
)
def test_forms_of_a_file(model, options, convolutions, bits, tmp_path):
    path = tmp_path / "model.tflite"
    done = convert(model, path, "--allow-float", "depthwise", "--dataset", "digits", "--json", *options)
    assert done.exit_code == 0, done.output
    audit = json.loads(done.stdout)["audit"]
    assert len(audit["binary_convolutions"]) == convolutions
    assert {c["bits"] for c in audit["float_convolutions"] if c["name"] == "logits"} == {bits}
    assert metadata.labels(flatbuffer.read(path)) == list("0123456789")


@pytest.mark.slow
def test_a_file_is_verified_on_the_images_that_it_is_calibrated_on(model, tmp_path):
    options = ["--allow-float", "depthwise", *INT8, "--calibrate", "digits"]
    done = convert(model, tmp_path / "model.tflite", *options)
    assert done.exit_code == 0, done.output
    assert "verifying on calibration images; the file will not contain labels" in done.stderr
    assert "equal to Keras rounded to int8" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--calibrate", "digits"), "--calibrate needs --int8"),
        (("--int8",), "--int8 needs images for the calibration: received none, give --calibrate DATA"),
        (("--int8", "--calibrate", "digits", "--weights", "int8"), "--int8 makes weights int8, too"),
    ],
)
def test_options_that_do_not_go_together(model, options, message, tmp_path):
    done = convert(model, tmp_path / "model.tflite", *options)
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


def larq_network():
    """Larq's layers, quantizers with arguments, and a sign by name as a layer of its own."""
    binary = {"input_quantizer": lq.quantizers.SteSign(1.25), "kernel_quantizer": "swish_sign"}
    constraint = lq.constraints.WeightClip(1.5)
    image = keras.Input((8, 8, 1), name="image")
    first = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip", "padding": "same"}
    x = keras.Activation("ste_sign")(keras.BatchNormalization()(lq.layers.QuantConv2D(32, 3, **first)(image)))
    x = keras.BatchNormalization()(lq.layers.QuantConv2D(32, 3, **first, pad_values=1.0)(x))
    x = lq.layers.QuantConv2D(32, 3, kernel_constraint=constraint, **binary)(keras.Activation("hard_tanh")(x))
    return tf.keras.Model(image, keras.Dense(10)(keras.GlobalAveragePooling2D()(x)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_an_hdf5_file_goes_through_the_commands(tmp_path):
    model, path = tmp_path / "model.h5", tmp_path / "model.tflite"
    larq_network().save(model)
    done = convert(model, path, "--dataset", "digits", "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["audit"]["binary_convolutions"]) == 2
    for read, *arguments in (
        (inspect, path),
        (verify, model, path, "--dataset", "digits"),
        (evaluate, model, "--dataset", "digits"),
    ):
        done = CliRunner().invoke(read.command, [*map(str, arguments)])
        assert done.exit_code == 0, done.output
