"""Real-valued weights as int8, one scale per output channel; activations and arithmetic stay float.

The file holds w = s·q, q in -127..127, and a DEQUANTIZE that the runtime does once when it loads the file. It computes
what Keras computes with its weights rounded so, which is what it is compared with.
"""

import copy
from typing import Any

import numpy as np

from kbnn.converters.graph.binary_layers import binary_calls
from kbnn.converters.graph.rounding import rounded_kernel, scales_per_channel
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import flatbuffer, lce
from kbnn.converters.tflite.flatbuffer import File, Tensor

# A smaller kernel gains nothing: its scales and the operator take as much.
_SMALLEST_BYTES = 1024


def rounded(reference: Reference) -> Reference:
    """Keras with the kernels of its real-valued layers rounded to int8, one scale per output channel."""
    names = _real_kernels(reference)
    kernels = dict(zip(names, reference.constants(names), strict=True))
    return reference.with_constants(
        {name: rounded_kernel(kernel) for name, kernel in kernels.items() if kernel.nbytes >= _SMALLEST_BYTES}
    )


def stored_as_int8(file: File) -> File:
    """The file with the weights of its real-valued convolutions and dense layers stored as int8."""
    model = flatbuffer.tree(file.data)
    weights = {tensor.index: tensor for tensor in _real_weights(file) if tensor.size_bytes >= _SMALLEST_BYTES}
    if not weights:
        return file
    code = _dequantize_code(model)
    graph = model.subgraphs[0]
    graph.operators = [*(_stored(model, tensor, code) for tensor in weights.values()), *graph.operators]
    _drop_unused_data(model)
    return flatbuffer.parse(flatbuffer.pack(model))


def _real_kernels(reference: Reference) -> list[str]:
    """The kernel tensors of all convolutions and products but those of 1-bit layers."""
    binary = {name for call in binary_calls(reference) for name in call.kernels}
    operations = reference.operations(reference.root, ("Conv2D", "MatMul"))
    kernels = dict.fromkeys(str(operation.inputs[1].name) for operation in operations)
    return [name for name in kernels if name not in binary and reference.is_constant(name)]


def _real_weights(file: File) -> list[Tensor]:
    found = [operator.inputs[1] for operator in file.operators if operator.name in ("CONV_2D", "FULLY_CONNECTED")]
    return [tensor for tensor in found if tensor is not None and tensor.data is not None and tensor.dtype == "float32"]


def _dequantize_code(model: Any) -> int:
    """The index of the operator code of DEQUANTIZE, which is added."""
    schema = lce.schema()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    # The first version with a scale per channel.
    code.version = 5
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _stored(model: Any, weights: Tensor, code: int) -> Any:
    """Adds the int8 form of a constant, and returns the operator that makes the constant of it."""
    schema, graph = lce.schema(), model.subgraphs[0]
    values = weights.value()
    scales = scales_per_channel(values, axis=0)
    quantized = np.round(values / scales).astype(np.int8)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(quantized.tobytes(), np.uint8)
    model.buffers.append(buffer)
    float_tensor = graph.tensors[weights.index]
    tensor = copy.copy(float_tensor)
    tensor.type, tensor.buffer, tensor.quantization = (
        schema.TensorType.INT8,
        len(model.buffers) - 1,
        _per_channel(scales),
    )
    float_tensor.name, float_tensor.buffer = f"{weights.name}/float".encode(), 0
    graph.tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs = np.array([len(graph.tensors) - 1], np.int32)
    operator.outputs = np.array([weights.index], np.int32)
    return operator


def _per_channel(scales: np.ndarray) -> Any:
    quantization = lce.schema().QuantizationParametersT()
    quantization.scale = scales.ravel()
    quantization.zeroPoint = np.zeros(scales.size, np.int64)
    quantization.quantizedDimension = 0
    return quantization


def _drop_unused_data(model: Any) -> None:
    """Empties the buffers that nothing refers to any more; buffer 0 is the format's empty one."""
    tensors = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used = tensors | {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
