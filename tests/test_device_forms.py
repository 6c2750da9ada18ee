"""The operators of each quantizer, layer and method after LCE's converter without kbnn's passes, and parity."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, methods, quantizers
from kbnn.converters.tflite import flatbuffer

lce = pytest.importorskip("larq_compute_engine", reason="Larq Compute Engine has no wheel for this platform")
from larq_compute_engine.tflite.python.interpreter import Interpreter  # noqa: E402

SHAPE = (6, 6, 64)
X = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
BINARY = ["LceQuantize", "LceBconv2d"]

ESTIMATORS = {
    "SteSign": quantizers.SteSign,
    "LeakySteSign": quantizers.LeakySteSign,
    "ApproxSign": quantizers.ApproxSign,
    "SignSwish": lambda: quantizers.SignSwish(trainable_beta=True),
    "TanhSign": quantizers.TanhSign,
    "EDESign": quantizers.EDESign,
}
KERNELS = {
    **ESTIMATORS,
    "MagnitudeAwareSign": quantizers.MagnitudeAwareSign,
    "XNORSign": quantizers.XNORSign,
    "DoReFaSign": quantizers.DoReFaSign,
    "LibraSign": quantizers.LibraSign,
    "StandardizedSign": quantizers.StandardizedSign,
    "HalfHalf identity": lambda: quantizers.HalfHalf("identity"),
    "HalfHalf magnitude": lambda: quantizers.HalfHalf("magnitude"),
    "OptimalMagnitude": quantizers.OptimalMagnitude,
}
# The operators around the two of the convolution itself.
LAYERS = {
    "BatchMedian": (layers.BatchMedian, ["SUB", "MUL", "PRELU"], []),
    "ChannelShift": (layers.ChannelShift, ["ADD"], []),
    "BiasedPReLU": (lambda: layers.BiasedPReLU(2), ["SUB", "PRELU"], []),
    "PReLU": (layers.PReLU, ["PRELU"], []),
    "RPReLU": (layers.RPReLU, ["SUB", "PRELU", "ADD"], []),
    "ChannelShuffle": (lambda: layers.ChannelShuffle(2), ["RESHAPE", "TRANSPOSE", "RESHAPE"], []),
}
METHODS = {
    "bnn": BINARY,
    "xnor": BINARY,
    "dorefa": BINARY,
    "bireal": BINARY,
    "irnet": BINARY,
    "siman": BINARY,
    "bnnplus_r1": BINARY,
    "bnnplus_r2": BINARY,
    "react": ["ADD", *BINARY],
    "xnor+k": ["ABS", "LceQuantize", "MEAN", "PAD", "AVERAGE_POOL_2D", "LceBconv2d", "MUL"],
    "xnor+std+ml+bma": ["SUB", "MUL", "PRELU", *BINARY],
}


def convolution(**kwargs) -> layers.BinaryConv2D:
    arguments = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", **kwargs}
    return layers.BinaryConv2D(64, 3, **arguments)


def converted(*chain: tf.keras.layers.Layer, shape=SHAPE) -> tuple[tf.keras.Model, bytes, list[str]]:
    return settled(tf.keras.Sequential([tf.keras.Input(shape), *chain]))


def settled(model: tf.keras.Model) -> tuple[tf.keras.Model, bytes, list[str]]:
    """The model with random parameters, its file, and the file's operators."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) == 1 or "moving" in weight.name:
            weight.assign(rng.uniform(0.2, 1.5, weight.shape))
    data = lce.convert_keras_model(model)
    return model, data, [operator.name for operator in flatbuffer.parse(data).operators]


def assert_equal_on(kernels: list[dict[str, bool]], model: tf.keras.Model, data: bytes, x=X) -> None:
    for options in kernels:
        np.testing.assert_allclose(Interpreter(data, **options).predict(x), model(x), 1e-4, 1e-4, err_msg=str(options))


DEFAULT, INDIRECT, REFERENCE = {}, {"use_indirect_bgemm": True}, {"use_reference_bconv": True}


@pytest.mark.core("XNORSign")
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_quantizers(name):
    model, data, operators = converted(convolution(kernel_quantizer=KERNELS[name]()))
    assert operators == BINARY
    assert_equal_on([DEFAULT, INDIRECT, REFERENCE], model, data)


@pytest.mark.core("ApproxSign", "SteSign")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_input_quantizers(name):
    model, data, operators = converted(convolution(input_quantizer=ESTIMATORS[name]()))
    assert operators == BINARY
    assert_equal_on([DEFAULT, INDIRECT, REFERENCE], model, data)


@pytest.mark.core("{'strides': 2}", "{'padding': 'valid'}")
@pytest.mark.parametrize(
    "arguments",
    [
        {"strides": 2},
        {"padding": "valid"},
        {"scale": "mean_abs"},
        {"scale": "learned", "use_bias": True},
        {"activation": "relu"},
        {"dilation_rate": 2},
    ],
    ids=str,
)
def test_binary_convolution(arguments):
    model, data, operators = converted(convolution(**arguments))
    assert operators == BINARY
    assert_equal_on([DEFAULT, INDIRECT, REFERENCE], model, data)


def test_grouped_binary_convolution_is_one_operator():
    model, data, operators = converted(convolution(groups=2))
    assert operators == BINARY
    # The default kernel of Larq Compute Engine 0.16 refuses groups.
    assert_equal_on([INDIRECT, REFERENCE], model, data)


def test_binary_dense_is_a_binary_convolution():
    layer = layers.BinaryDense(64, input_quantizer="ste_sign", kernel_quantizer=quantizers.XNORSign())
    model, data, operators = converted(layer, shape=(64,))
    assert operators == ["RESHAPE", *BINARY, "RESHAPE"]
    assert_equal_on([DEFAULT, INDIRECT, REFERENCE], model, data, X[:, 0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_layers_before_a_sign(name):
    make, before, after = LAYERS[name]
    model, data, operators = converted(make(), convolution())
    assert operators == [*before, *BINARY, *after]
    assert_equal_on([DEFAULT, INDIRECT, REFERENCE], model, data)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 2])
def test_group_normalization(groups):
    model, data, operators = converted(layers.GroupNormalization(groups), convolution())
    assert operators[-2:] == BINARY
    assert set(operators[:-2]) <= {"MEAN", "SUB", "SQUARE", "ADD", "RSQRT", "MUL", "RESHAPE"}
    assert_equal_on([DEFAULT, INDIRECT, REFERENCE], model, data)


@pytest.mark.slow
def test_group_aware_normalization():
    model, data, operators = converted(convolution(groups=2), layers.GroupAwareNormalization(2))
    assert operators[:2] == BINARY
    assert set(operators[2:]) <= {"MEAN", "SUB", "SQUARE", "ADD", "RSQRT", "MUL", "RESHAPE", "PRELU"}
    assert_equal_on([INDIRECT, REFERENCE], model, data)


@pytest.mark.core("bireal")
@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    inputs = tf.keras.Input(SHAPE)
    outputs = methods.get(name).convolution(inputs, 64, 3, name="conv")
    model, data, operators = settled(tf.keras.Model(inputs, outputs))
    assert operators == METHODS[name]
    assert_equal_on([DEFAULT, INDIRECT, REFERENCE], model, data)
