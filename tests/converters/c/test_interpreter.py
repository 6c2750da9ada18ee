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
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "REDUCE_MAX": "ReducerOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
}
# The versions of operators that know int8.
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "DEQUANTIZE": 2,
    "DEPTH_TO_SPACE": 1,
    "ELU": 1,
    "PRELU": 1,
    "QUANTIZE": 1,
    "RELU_N1_TO_1": 1,
}


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
        # The filters are the first axis of a convolution's kernel, and the last one of a depthwise convolution's.
        made.quantization.quantizedDimension = 0 if item.shape[:1] != (1,) else max(len(item.shape) - 1, 0)
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
        dilations = {"dilationHFactor": 1, "dilationWFactor": 1} if "CONV_2D" in item.name else {}
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


def convolved(size, channels=5, **geometry):
    made = Builder(6, 7, channels)
    made.convolution(21, size, **geometry)
    return made


def convolved_ties(**geometry):
    """Sums that are exactly halfway between two levels: multipliers are powers of two."""
    made = Builder(6, 6, 6, scale=0.5)
    made.convolution(24, scale=0.5, scales=[2.0 ** (-6 - k % 3) for k in range(24)], **geometry)
    return made


def depthwise(channels, **geometry):
    made = Builder(7, 8, channels)
    made.depthwise(**geometry)
    return made


def depthwise_ties(channels, exponents=(-6, -8, -7), **geometry):
    """Sums that are exactly halfway between two levels: multipliers are powers of two."""
    made = Builder(6, 6, channels, scale=0.5)
    filters = channels * geometry.get("times", 1)
    scales = [2.0 ** exponents[k % len(exponents)] for k in range(filters)]
    made.depthwise(scale=0.5, scales=scales, **geometry)
    return made


def product(shape, other, scale=0.05, scales=(0.02, 0.037)):
    """A product with another value of the network, which is computed from the same image."""
    made = Builder(*shape, scale=scales[0])
    second = made.tensor((1, *other), "int8", None, (scales[1],), (-7,), name="other")
    made.add("MUL", [made.image, second], (1, *shape), scale=scale)
    return made


def in_a_table(name, scale, out_scale, out_zero):
    made = Builder(16, 16, 1, scale=scale, zero_point=17)
    made.add(name, [made.image], (1, 16, 16, 1), scale=out_scale, zero_point=out_zero)
    return made


def requantized(channels, scale):
    made = Builder(1, 37, channels, scale=0.5)
    made.add("QUANTIZE", [made.image], (1, 1, 37, channels), scale=scale, zero_point=-9)
    return made


def padded(sides, value=None):
    made = Builder(4, 5, 6, zero_point=-11)
    made.padded(sides, value)
    return made


def largest(keep):
    made = Builder(5, 7, 21)
    axes = made.constant(np.array([1, 2], np.int32))
    same = {"scale": 0.02, "zero_point": 3}
    made.add("REDUCE_MAX", [made.image, axes], (1, 1, 1, 21) if keep else (1, 21), keepDims=keep, **same)
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


def in_float(channels=21, name="MUL", scales=(0.02, 0.031), constants=None):
    """DEQUANTIZE, a float operator, QUANTIZE, on 16 pixels."""
    made = Builder(4, 4, channels, scale=scales[0], zero_point=3)
    source = made.add("DEQUANTIZE", [made.image], (1, 4, 4, channels), "float32")
    given = [] if name == "ELU" else [np.linspace(-1, 2, channels) if constants is None else constants]
    made.add(name, [source, *(made.constant(f32(values)) for values in given)], (1, 4, 4, channels), "float32")
    made.add("QUANTIZE", [made.last], (1, 4, 4, channels), scale=scales[1])
    return made


def in_float_alone(scale, factors):
    """The same on 15 values, of which the last 7 fill no vector."""
    made = Builder(1, 1, 15, scale=scale, zero_point=17)
    made.add("DEQUANTIZE", [made.image], (1, 1, 1, 15), "float32")
    made.add("MUL", [made.last, made.constant(f32(factors))], (1, 1, 1, 15), "float32")
    made.add("QUANTIZE", [made.last], (1, 1, 1, 15), scale=0.2, zero_point=-9)
    return made


# The float32 values next to 0.2 times a half, for values in a vector and for others.
_NEXT_TO_HALVES = [np.nextafter(f32(k + 0.5) * f32(0.2), f32(way)) for k in (0, 1, 6) for way in (0, k + 1)]
HALVES = [*_NEXT_TO_HALVES, 0.1, 0.3, *_NEXT_TO_HALVES, 0.1]


def normalized(channels, scale):
    made = Builder(3, 3, channels, scale=scale)
    made.add("SOFTMAX", [made.image], (1, 3, 3, channels), scale=1 / 256, zero_point=-128, beta=1.0)
    return made


def moved(name, shape, *constants, **options):
    made = Builder(4, 6, 8)
    given = [made.constant(np.array(values, np.int32)) for values in constants]
    made.add(name, [made.image, *given], (1, *shape), scale=0.02, zero_point=3, **options)
    return made


def signal_mean(keep):
    made = Builder(37, 21, scale=0.0137, zero_point=-23)
    axes = made.constant(np.array([1], np.int32))
    made.add("MEAN", [made.image, axes], (1, 1, 21) if keep else (1, 21), scale=0.02, keepDims=keep)
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
    "CONV_2D, dilated": lambda: convolved(3, dilation=2),
    "CONV_2D, dilated, ties": lambda: convolved_ties(dilation=2),
    "CONV_2D, 3 groups": lambda: convolved(3, 6, groups=3, stride=2),
    "CONV_2D, 3 groups, ties": lambda: convolved_ties(groups=3),
    "CONV_2D, 3 groups, dilated": lambda: convolved(2, 6, groups=3, dilation=2, valid=True),
    "FULLY_CONNECTED": dense,
    "DEQUANTIZE, MUL, QUANTIZE": in_float,
    "DEQUANTIZE, ELU, QUANTIZE": lambda: in_float(16, "ELU", (0.031, 0.021)),
    "DEQUANTIZE, MUL, QUANTIZE of ties": lambda: in_float_alone(0.1, np.ones(15)),
    "DEQUANTIZE, MUL, QUANTIZE of almost ties": lambda: in_float_alone(1.0, HALVES),
    "SOFTMAX": lambda: normalized(10, 0.1),
    "SOFTMAX of many": lambda: normalized(100, 0.02),
    "SOFTMAX, steep": lambda: normalized(3, 0.7),
    "TRANSPOSE": lambda: moved("TRANSPOSE", (6, 4, 8), (0, 2, 1, 3)),
    "STRIDED_SLICE": lambda: moved("STRIDED_SLICE", (2, 5, 3), (0, 1, 1, 2), (1, 4, 6, 8), (1, 2, 1, 2)),
    "SPACE_TO_DEPTH": lambda: moved("SPACE_TO_DEPTH", (2, 3, 32), blockSize=2),
    "DEPTH_TO_SPACE": lambda: moved("DEPTH_TO_SPACE", (8, 12, 2), blockSize=2),
    "RESIZE_NEAREST_NEIGHBOR": lambda: moved("RESIZE_NEAREST_NEIGHBOR", (8, 9, 8), (8, 9), halfPixelCenters=True),
    "MEAN of a signal": lambda: signal_mean(keep=False),
    "MEAN of a signal that keeps its axes": lambda: signal_mean(keep=True),
    "DEPTHWISE_CONV_2D": lambda: depthwise(21),
    "DEPTHWISE_CONV_2D, stride 2, ReLU6": lambda: depthwise(16, stride=2, activation=3),
    "DEPTHWISE_CONV_2D, dilated": lambda: depthwise(8, dilation=2),
    "DEPTHWISE_CONV_2D, 3 filters per channel": lambda: depthwise(5, times=3, size=(5, 2), valid=True),
    "DEPTHWISE_CONV_2D, 8 filters of one channel": lambda: depthwise(1, times=8, stride=3),
    "DEPTHWISE_CONV_2D, ties": lambda: depthwise_ties(23),
    "DEPTHWISE_CONV_2D, ties and a shift to the left": lambda: depthwise_ties(44, (-6, -8, -7, 1)),
    "DEPTHWISE_CONV_2D, ties, stride 2": lambda: depthwise_ties(32, stride=2),
    "DEPTHWISE_CONV_2D, ties, 1x1": lambda: depthwise_ties(15, size=(1, 1)),
    "DEPTHWISE_CONV_2D, ties, 5x5": lambda: depthwise_ties(12, size=(5, 5), valid=True),
    "DEPTHWISE_CONV_2D, ties, 2 filters per channel": lambda: depthwise_ties(10, times=2),
    "DEPTHWISE_CONV_2D, ties, 8 filters of one channel": lambda: depthwise_ties(1, times=8),
    "LOGISTIC": lambda: in_a_table("LOGISTIC", 0.047, 1 / 256, -128),
    "LOGISTIC, steep": lambda: in_a_table("LOGISTIC", 0.31, 1 / 256, -128),
    "TANH": lambda: in_a_table("TANH", 0.023, 1 / 128, 0),
    "TANH, steep": lambda: in_a_table("TANH", 0.11, 1 / 128, 0),
    "QUANTIZE": lambda: requantized(5, 0.31),
    "QUANTIZE of ties": lambda: requantized(5, 4.0),
    "QUANTIZE to finer levels": lambda: requantized(5, 0.11),
    "PAD": lambda: padded([(1, 2), (3, 0), (0, 0)]),
    "PADV2": lambda: padded([(0, 1), (2, 1), (1, 0)], value=-128),
    "REDUCE_MAX": lambda: largest(keep=False),
    "REDUCE_MAX that keeps its axes": lambda: largest(keep=True),
}
# The shapes of two computed values that are multiplied, and scales; a tie is every 32nd product.
PRODUCTS = {
    "the same shape": ((5, 3, 21), (5, 3, 21)),
    "per channel": ((5, 3, 21), (1, 1, 21)),
    "per pixel": ((5, 3, 21), (5, 3, 1)),
    "one value": ((5, 3, 21), (1, 1, 1)),
    "per row": ((5, 3, 21), (5, 1, 21)),
    "per column": ((5, 3, 21), (1, 3, 1)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_equal_the_interpreters(name):
    file = OPERATORS[name]().file()
    shape = file.inputs["image"].shape[1:]
    images = np.random.default_rng(1).integers(-128, 128, size=(50, *shape)).astype(np.int8)
    if np.prod(shape) < 30:
        images = np.broadcast_to(LEVELS.reshape(-1, *[1] * len(shape)), (256, *shape)).astype(np.int8)
    (received,) = interpreter.run(packed(file), [images], kernel="reference")
    expected = run(file, images)[file.outputs["out"].index]
    np.testing.assert_array_equal(received.reshape(expected.shape), expected)


def interpreted(file, *inputs):
    """The interpreter's output for one int8 sample of each input."""
    (received,) = interpreter.run(packed(file), [item.astype(np.int8)[None] for item in inputs], kernel="reference")
    return received


@pytest.mark.parametrize("scale", [0.05, 2.0])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_equal_the_interpreters(name, scale):
    made = product(*PRODUCTS[name], scale, (0.25, 0.125) if scale == 2.0 else (0.02, 0.037))
    file = made.file()
    file.inputs["other"] = made.operators[0].inputs[1]
    random = np.random.default_rng(2)
    images, others = (random.integers(-128, 128, size=(20, *shape)).astype(np.int8) for shape in PRODUCTS[name])
    (received,) = interpreter.run(packed(file), [images, others], kernel="reference")
    np.testing.assert_array_equal(received, compute(file.operators[0], [images, others]))


def two_terms(name, shape, operator="ADD"):
    """A file that adds two images, or subtracts one."""
    (a, b, out) = SUMS[name]
    made = Builder(*shape, scale=a[0], zero_point=a[1])
    other = made.tensor((1, *shape), "int8", None, (b[0],), (b[1],), name="other")
    made.add(operator, [made.image, other], (1, *shape), scale=out[0], zero_point=out[1])
    file = made.file()
    file.inputs["other"] = other
    return file


@pytest.mark.parametrize("operator", ["ADD", "SUB"])
@pytest.mark.parametrize("name", SUMS)
def test_all_sums_equal_the_interpreters(name, operator):
    file = two_terms(name, (256, 256, 1), operator)
    pairs = [values[..., None] for values in np.meshgrid(LEVELS, LEVELS, indexing="ij")]
    expected = compute(file.operators[0], [values[None] for values in pairs])
    np.testing.assert_array_equal(interpreted(file, *pairs), expected)


@pytest.mark.parametrize("name", ["ties", "other ties"])
def test_values_that_fill_no_vector_are_added_differently(name):
    file = two_terms(name, (1, 3, 7))
    a, b = (np.full((1, 3, 7), value) for value in differing(name, "vector"))
    received = interpreted(file, a, b)
    np.testing.assert_array_equal(received, compute(file.operators[0], [a[None], b[None]]))
    assert np.all(received.ravel()[:16] != received.ravel()[16:17])


@pytest.mark.parametrize("name", ["ties", "other ties"])
@pytest.mark.parametrize(("shape", "rule", "vectors"), [((21,), "vector", 16), ((1,), "broadcast", 56)])
def test_constants_that_fill_no_vector_are_added_differently(name, shape, rule, vectors):
    level, value = differing(name, rule)
    file = added_constant(name, 3, np.full(shape, value, np.int8)).file()
    (received,) = interpreter.run(packed(file), [np.full((1, 3, 1, 21), level, np.int8)], kernel="reference")
    np.testing.assert_array_equal(
        received, run(file, np.full((1, 3, 1, 21), level, np.int8))[file.outputs["out"].index]
    )
    assert received.ravel()[vectors - 1] != received.ravel()[vectors + 3]
