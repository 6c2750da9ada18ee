"""The operators in NumPy that C code is compared with, against LCE's interpreter, which runs the optimized kernels."""

import flatbuffers
import numpy as np
import pytest
from operators import SUMS, Builder, added_constant, compute, differing, f32, run
from tensorflow.lite.python import schema_py_generated as schema

from kbnn.converters.tflite import interpreter

LEVELS = np.arange(-128, 128)
_OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONV_2D": "Conv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
}
# The versions of operators that know int8.
_VERSIONS = {"CONV_2D": 3, "FULLY_CONNECTED": 4, "DEQUANTIZE": 2, "PRELU": 1, "QUANTIZE": 1, "RELU_N1_TO_1": 1}


def packed(file):
    """A file of TensorFlow Lite's own operators as bytes."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], [schema.BufferT()], []
    graph.tensors = [packed_tensor(item, model.buffers) for item in file.tensors]
    graph.operators = [packed_operator(item, model.operatorCodes) for item in file.operators]
    graph.inputs, graph.outputs = (
        np.array([t.index for t in named.values()], np.int32) for named in (file.inputs, file.outputs)
    )
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def packed_tensor(item, buffers):
    made = schema.TensorT()
    made.name, made.shape = item.name.encode(), np.array(item.shape, np.int32)
    made.type = getattr(schema.TensorType, item.dtype.upper())
    if item.data is not None:
        buffer = schema.BufferT()
        buffer.data, made.buffer = item.data, len(buffers)
        buffers.append(buffer)
    if item.scales:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = np.array(item.scales, np.float32)
        made.quantization.zeroPoint = np.array(item.zero_points, np.int64)
    return made


def packed_operator(item, codes):
    code, made = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, item.name)
    code.version = _VERSIONS.get(item.name, 2)
    made.opcodeIndex = len(codes)
    codes.append(code)
    made.inputs = np.array([-1 if t is None else t.index for t in item.inputs], np.int32)
    made.outputs = np.array([t.index for t in item.outputs], np.int32)
    if item.name in _OPTIONS:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, _OPTIONS[item.name])
        made.builtinOptions = getattr(schema, _OPTIONS[item.name] + "T")()
        dilations = {"dilationHFactor": 1, "dilationWFactor": 1} if item.name == "CONV_2D" else {}
        for key, value in {**dilations, **item.options}.items():
            setattr(made.builtinOptions, key, value)
    return made


def constant(name, shape, seed=0, **builder):
    """An operator between an image of 5x3x21 values and a constant."""
    made = Builder(5, 3, 21, seed=seed, **builder)
    values = made.constant(made.random.integers(-128, 128, size=shape).astype(np.int8), (0.037,), (11,))
    made.add(name, [made.image, values], (1, 5, 3, 21), scale=0.029)
    return made


def mean(side, channels, keep, scale=0.02):
    made = Builder(side, side, channels, scale=0.0137, zero_point=-23)
    axes = made.constant(np.array([1, 2], np.int32))
    made.add("MEAN", [made.image, axes], (1, 1, 1, channels) if keep else (1, channels), scale=scale, keepDims=keep)
    return made


def pooled(kind, valid):
    made = Builder(9, 9, 21)
    made.pool(kind, 3, 2, valid)
    return made


def convolved(size):
    made = Builder(6, 7, 5)
    made.convolution(21, size)
    return made


def leaky():
    made = Builder(4, 5, 21)
    made.add("LEAKY_RELU", [made.image], (1, 4, 5, 21), scale=0.017, alpha=0.3)
    return made


def rectified(name):
    made = Builder(4, 5, 21, scale=0.07, zero_point=-11)
    made.add(name, [made.image], (1, 4, 5, 21), scale=0.0423, zero_point=-20)
    return made


def dense():
    made = Builder(1, 1, 33)
    kernel = made.constant(made.random.integers(-127, 128, size=(10, 33)).astype(np.int8), (0.005,), (0,))
    bias = made.constant(made.random.integers(-99, 99, size=10).astype(np.int32))
    made.add("FULLY_CONNECTED", [made.image, kernel, bias], (1, 10))
    return made


def in_float():
    made = Builder(4, 4, 21)
    made.add("DEQUANTIZE", [made.image], (1, 4, 4, 21), "float32")
    made.add("MUL", [made.last, made.constant(np.linspace(-1, 2, 21).astype(f32))], (1, 4, 4, 21), "float32")
    made.add("QUANTIZE", [made.last], (1, 4, 4, 21), scale=0.031)
    return made


OPERATORS = {
    "ADD per channel": lambda: constant("ADD", (21,)),
    "ADD of one value": lambda: constant("ADD", (1,)),
    "MUL per channel": lambda: constant("MUL", (21,)),
    "MUL of one value": lambda: constant("MUL", (1,)),
    "PRELU": lambda: constant("PRELU", (1, 1, 21)),
    "LEAKY_RELU": leaky,
    "RELU": lambda: rectified("RELU"),
    "RELU6": lambda: rectified("RELU6"),
    "RELU_N1_TO_1": lambda: rectified("RELU_N1_TO_1"),
    "MEAN": lambda: mean(7, 21, keep=False),
    "MEAN that keeps its axes": lambda: mean(7, 21, keep=True),
    "MEAN of ties": lambda: mean(4, 37, keep=True, scale=0.0137),
    "AVERAGE_POOL_2D": lambda: pooled("AVERAGE_POOL_2D", valid=True),
    "AVERAGE_POOL_2D, padded": lambda: pooled("AVERAGE_POOL_2D", valid=False),
    "MAX_POOL_2D": lambda: pooled("MAX_POOL_2D", valid=False),
    "CONV_2D": lambda: convolved(3),
    "CONV_2D, 1x1": lambda: convolved(1),
    "FULLY_CONNECTED": dense,
    "DEQUANTIZE, MUL, QUANTIZE": in_float,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_the_interpreters(name):
    file = OPERATORS[name]().file()
    images = np.random.default_rng(1).integers(-128, 128, size=(50, *file.inputs["image"].shape[1:])).astype(np.int8)
    (received,) = interpreter.run(packed(file), [images], kernel="reference")
    expected = run(file, images)[file.outputs["out"].index]
    np.testing.assert_array_equal(received.reshape(expected.shape), expected)


def interpreted(file, *inputs):
    """The interpreter's output for one int8 sample of each input."""
    (received,) = interpreter.run(packed(file), [item.astype(np.int8)[None] for item in inputs], kernel="reference")
    return received


def two_terms(name, shape):
    """A file that adds two images."""
    (a, b, out) = SUMS[name]
    made = Builder(*shape, scale=a[0], zero_point=a[1])
    other = made.tensor((1, *shape), "int8", None, (b[0],), (b[1],), name="other")
    made.add("ADD", [made.image, other], (1, *shape), scale=out[0], zero_point=out[1])
    file = made.file()
    file.inputs["other"] = other
    return file


@pytest.mark.parametrize("name", SUMS)
def test_all_sums_are_the_interpreters(name):
    file = two_terms(name, (256, 256, 1))
    pairs = [values[..., None] for values in np.meshgrid(LEVELS, LEVELS, indexing="ij")]
    expected = compute(file.operators[0], [values[None] for values in pairs])
    np.testing.assert_array_equal(interpreted(file, *pairs), expected)


@pytest.mark.parametrize("name", ["ties", "other ties"])
def test_values_that_fill_no_vector_are_added_otherwise(name):
    file = two_terms(name, (1, 3, 7))
    a, b = (np.full((1, 3, 7), value) for value in differing(name, "vector"))
    received = interpreted(file, a, b)
    np.testing.assert_array_equal(received, compute(file.operators[0], [a[None], b[None]]))
    assert np.all(received.ravel()[:16] != received.ravel()[16:17])


@pytest.mark.parametrize("name", ["ties", "other ties"])
@pytest.mark.parametrize(("shape", "rule", "vectors"), [((21,), "vector", 16), ((1,), "broadcast", 56)])
def test_constants_that_fill_no_vector_are_added_otherwise(name, shape, rule, vectors):
    level, value = differing(name, rule)
    file = added_constant(name, 3, np.full(shape, value, np.int8)).file()
    (received,) = interpreter.run(packed(file), [np.full((1, 3, 1, 21), level, np.int8)], kernel="reference")
    np.testing.assert_array_equal(
        received, run(file, np.full((1, 3, 1, 21), level, np.int8))[file.outputs["out"].index]
    )
    assert received.ravel()[vectors - 1] != received.ravel()[vectors + 3]
