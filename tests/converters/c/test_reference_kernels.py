"""The arithmetic of sums against TensorFlow Lite's own reference kernel, for every pair of int8 values."""

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from kbnn.converters.c import writers

LEVELS = np.arange(-128, 128)
Quantization = tuple[float, int]


def add_file(quantizations: list[Quantization]) -> bytes:
    """A file that adds two int8 images of 256x256 pixels."""
    model, graph, operator, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = schema.BuiltinOperator.ADD, 0, 2
    operator.inputs, operator.outputs = np.array([0, 1], np.int32), np.array([2], np.int32)
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.tensors, graph.operators = [tensor(*found) for found in quantizations], [operator]
    graph.inputs, graph.outputs = operator.inputs, operator.outputs
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tensor(scale: float, zero_point: int) -> schema.TensorT:
    made = schema.TensorT()
    made.shape, made.type = np.array([1, 256, 256, 1], np.int32), schema.TensorType.INT8
    made.quantization = schema.QuantizationParametersT()
    made.quantization.scale = np.array([scale], np.float32)
    made.quantization.zeroPoint = np.array([zero_point], np.int64)
    return made


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize(
    "quantizations",
    [
        # On x86, the optimized kernel rounds two of the 65,536 pairs differently.
        [(0.04141920059919357, 1), (0.0630820244550705, -10), (0.07039189338684082, -1)],
        [(0.041109561920166016, 6), (0.053949858993291855, -13), (0.0630820244550705, -10)],
        [(0.5, -100), (0.001, 90), (0.3, 0)],
        [(0.1, 0), (0.1, 0), (0.1, 0)],
    ],
    ids=["ties", "common", "unequal", "equal"],
)
def test_sums_equal_the_reference_kernel(quantizations: list[Quantization]):
    interpreter = tf.lite.Interpreter(
        model_content=add_file(quantizations),
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    a, b = np.meshgrid(LEVELS, LEVELS, indexing="ij")
    for detail, values in zip(interpreter.get_input_details(), (a, b), strict=True):
        interpreter.set_tensor(detail["index"], values.astype(np.int8)[None, ..., None])
    interpreter.invoke()
    received = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0, ..., 0]
    (a_scale, a_zero), (b_scale, b_zero), (scale, zero) = quantizations
    expected = writers._added(a, b, (a_scale, b_scale, scale), (a_zero, b_zero)) + zero
    np.testing.assert_array_equal(received, np.clip(expected, -128, 127))
