"""Changes to a finished file: constants and operators that its converter cannot write."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kbnn.converters.tflite import flatbuffer, lce
from kbnn.converters.tflite.flatbuffer import File, Tensor


class Surgery:
    """A file that is being changed. Operators that are added compute constants, so they precede all others."""

    def __init__(self, file: File) -> None:
        self.model = flatbuffer.tree(file.data)
        self._graph = self.model.subgraphs[0]
        self._added: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}

    def constant(self, name: str, values: np.ndarray, scales: np.ndarray | None = None) -> int:
        """The index of a new constant tensor; `scales` of an integer one are per channel of its first axis."""
        buffer = lce.schema().BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self._tensor(name, values.shape, str(values.dtype), len(self.model.buffers) - 1, scales)

    def value(self, name: str, shape: Sequence[int]) -> int:
        """The index of a new float tensor, for an operator to write."""
        return self._tensor(name, shape, "float32", 0, None)

    def computed(self, tensor: Tensor, name: str) -> int:
        """Turns a constant into the output of an operator that is to be added, under another name."""
        changed = self._graph.tensors[tensor.index]
        changed.name, changed.buffer = name.encode(), 0
        return tensor.index

    def add(
        self, name: str, version: int, inputs: Sequence[int], output: int, options: str = "", **fields: int
    ) -> None:
        """Adds an operator, with the builtin options of a class such as "MulOptions"."""
        schema = lce.schema()
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(name, version)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            vars(operator.builtinOptions).update(fields)
        self._added.append(operator)

    def redirect(self, operator: int, position: int, tensor: int, version: int | None = None) -> None:
        """Makes an operator read another tensor, and be one of another version."""
        changed = self._graph.operators[operator]
        changed.inputs = np.array(changed.inputs, np.int32)
        changed.inputs[position] = tensor
        if version is not None:
            code = self.model.operatorCodes[changed.opcodeIndex]
            names = {value: name for name, value in vars(lce.schema().BuiltinOperator).items()}
            changed.opcodeIndex = self._code(names[max(code.builtinCode, code.deprecatedBuiltinCode)], version)

    def file(self) -> File:
        """The changed file, without constants that nothing refers to any more."""
        self._graph.operators = [*self._added, *self._graph.operators]
        tensors = {tensor.buffer for graph in self.model.subgraphs for tensor in graph.tensors}
        used = tensors | {entry.buffer for entry in self.model.metadata or ()}
        for index, buffer in enumerate(self.model.buffers):
            # Buffer 0 is the format's empty one.
            if index not in used:
                buffer.data = None
        return flatbuffer.parse(flatbuffer.pack(self.model))

    def _tensor(self, name: str, shape: Sequence[int], dtype: str, buffer: int, scales: np.ndarray | None) -> int:
        schema = lce.schema()
        tensor = schema.TensorT()
        tensor.name, tensor.buffer, tensor.shape = name.encode(), buffer, np.array(shape, np.int32)
        tensor.type = getattr(schema.TensorType, dtype.upper())
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales.ravel()
            tensor.quantization.zeroPoint = np.zeros(scales.size, np.int64)
            tensor.quantization.quantizedDimension = 0
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _code(self, name: str, version: int) -> int:
        """The index of an operator code, which is added once."""
        if (name, version) not in self._codes:
            schema = lce.schema()
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            # Codes above 127 do not fit the field of the format's first years, which then holds a placeholder.
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = version
            self.model.operatorCodes.append(code)
            self._codes[name, version] = len(self.model.operatorCodes) - 1
        return self._codes[name, version]
