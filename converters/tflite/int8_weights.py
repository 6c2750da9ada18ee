"""Real-valued weights in 8 or 16 bits, one scale per output channel; activations and arithmetic stay float.

The file holds w = s·q. With 8 bits a DEQUANTIZE makes the float kernel, once, when the file is loaded; it has no scale
per channel for 16 bits, so there a MUL follows. The file computes what Keras computes with its weights rounded so, and
is compared with that.

A binary network amplifies differences: rounding the stem of a ResNet-20 to 8 bits moves the class of as many images as
noise of half a grey level does (results/int8.csv), and no correction of biases, scales or statistics undoes that.
Layers whose values reach a sign are therefore stored in 16 bits. They are small; the classifier stays in 8.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from kbnn.converters.graph.binary_layers import binary_calls
from kbnn.converters.graph.graph import Graph
from kbnn.converters.graph.operations import BinaryConvolution, Opaque, Sign
from kbnn.converters.graph.rounding import rounded_kernel, scales_per_channel
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import flatbuffer, lce
from kbnn.converters.tflite.flatbuffer import File, Tensor

# A smaller kernel gains nothing: its scales and the operators take as much.
_SMALLEST_BYTES = 1024


def before_signs(graph: Graph) -> tuple[str, ...]:
    """The real-valued layers that have a sign anywhere behind them."""
    read: set[str] = set()
    for node in reversed(list(graph)):
        if node.name in read or isinstance(node.operation, Sign):
            read.update(node.inputs)
    found = [node for node in graph if node.name in read and node.operation.convolves]
    real = [node.layer for node in found if not isinstance(node.operation, BinaryConvolution | Opaque)]
    return tuple(dict.fromkeys(real))


def rounded(reference: Reference, in_16_bits: Sequence[str] = ()) -> Reference:
    """Keras with the kernels of its real-valued layers rounded to int8, or to int16 for the layers that are named."""
    bits = {name: 16 if layer in in_16_bits else 8 for name, layer in _real_kernels(reference).items()}
    kernels = dict(zip(bits, reference.constants(list(bits)), strict=True))
    return reference.with_constants(
        {
            name: rounded_kernel(kernel, bits[name])
            for name, kernel in kernels.items()
            if kernel.nbytes >= _SMALLEST_BYTES
        }
    )


def stored_as_int8(file: File, in_16_bits: Sequence[str] = ()) -> File:
    """The file with the weights of its real-valued convolutions and dense layers stored as int8, or as int16."""
    model = flatbuffer.tree(file.data)
    weights = {tensor.index: tensor for tensor in _real_weights(file) if tensor.size_bytes >= _SMALLEST_BYTES}
    if not weights:
        return file
    store = _Storage(model)
    for tensor in weights.values():
        if tensor.name.removesuffix("/kernel") in in_16_bits:
            store.as_int16(tensor)
        else:
            store.as_int8(tensor)
    model.subgraphs[0].operators = [*store.operators, *model.subgraphs[0].operators]
    _drop_unused_data(model)
    return flatbuffer.parse(flatbuffer.pack(model))


def _real_kernels(reference: Reference) -> dict[str, str]:
    """The kernel tensors of all convolutions and products except those of 1-bit layers, each with its layer."""
    binary = {name for call in binary_calls(reference) for name in call.kernels}
    found: dict[str, str] = {}
    for operation in reference.operations(reference.root, ("Conv2D", "MatMul")):
        name = str(operation.inputs[1].name)
        if name not in binary and reference.is_constant(name):
            found.setdefault(name, reference.layer_name(reference.order[operation.name]))
    return found


def _real_weights(file: File) -> list[Tensor]:
    found = [operator.inputs[1] for operator in file.operators if operator.name in ("CONV_2D", "FULLY_CONNECTED")]
    return [tensor for tensor in found if tensor is not None and tensor.data is not None and tensor.dtype == "float32"]


class _Storage:
    """The operators that make float kernels of stored ones, to be executed before all others."""

    def __init__(self, model: Any) -> None:
        self._model, self._codes = model, dict[str, int]()
        self.operators: list[Any] = []

    def as_int8(self, weights: Tensor) -> None:
        values = weights.value()
        scales = scales_per_channel(values, 0)
        stored = self._constant(weights, weights.name, np.round(values / scales).astype(np.int8), _per_channel(scales))
        # The first version of DEQUANTIZE with a scale per channel.
        self._append("DEQUANTIZE", 5, [stored], self._computed(weights))

    def as_int16(self, weights: Tensor) -> None:
        values = weights.value()
        scales = scales_per_channel(values, 0, bits=16)
        integers = np.round(values / scales).astype(np.int16)
        stored = self._constant(weights, weights.name, integers, _per_channel(np.ones(1, np.float32)))
        factors = self._constant(weights, f"{weights.name}/scales", scales, None)
        floats = self._add(weights, f"{weights.name}/integers", "float32", 0, None)
        # The first version of DEQUANTIZE for int16.
        self._append("DEQUANTIZE", 3, [stored], floats)
        self._append("MUL", 1, [floats, factors], self._computed(weights), "MulOptions")

    def _constant(self, like: Tensor, name: str, values: np.ndarray, quantization: Any) -> int:
        buffer = lce.schema().BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor = self._add(like, name, str(values.dtype), len(self._model.buffers) - 1, quantization)
        self._model.subgraphs[0].tensors[tensor].shape = np.array(values.shape, np.int32)
        return tensor

    def _add(self, like: Tensor, name: str, dtype: str, buffer: int, quantization: Any) -> int:
        """Adds a tensor that differs from another one in what is given."""
        tensors = self._model.subgraphs[0].tensors
        tensor = copy.copy(tensors[like.index])
        tensor.name, tensor.buffer, tensor.quantization = name.encode(), buffer, quantization
        tensor.type = getattr(lce.schema().TensorType, dtype.upper())
        tensors.append(tensor)
        return len(tensors) - 1

    def _computed(self, weights: Tensor) -> int:
        """Turns a constant into the result of an operator."""
        tensor = self._model.subgraphs[0].tensors[weights.index]
        tensor.name, tensor.buffer = f"{weights.name}/float".encode(), 0
        return weights.index

    def _append(self, name: str, version: int, inputs: list[int], output: int, options: str | None = None) -> None:
        schema = lce.schema()
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(name, version)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
        self.operators.append(operator)

    def _code(self, name: str, version: int) -> int:
        """The index of an operator code, which is added once; a file may list a name in several versions."""
        key = f"{name} {version}"
        if key not in self._codes:
            schema = lce.schema()
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
            code.version = version
            self._model.operatorCodes.append(code)
            self._codes[key] = len(self._model.operatorCodes) - 1
        return self._codes[key]


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
