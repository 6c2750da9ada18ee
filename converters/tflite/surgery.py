"""Changes a finished file: adds constants and operators that the converter cannot write."""

from collections.abc import Sequence

import numpy as np

from kbnn.converters.tflite import flatbuffer, lce
from kbnn.converters.tflite.flatbuffer import File, Tensor
from kbnn.converters.tflite.lce import SchemaObject


class Surgery:
    """A file that is being changed. Added operators compute constants, so they run before all others."""

    def __init__(self, file: File) -> None:
        self.model = flatbuffer.tree(file.data)
        self._graph = self.model.subgraphs[0]
        self._added: list[SchemaObject] = []
        self._codes: dict[tuple[str, int], int] = {}

    def constant(self, name: str, values: np.ndarray, scales: np.ndarray | None = None) -> int:
        """Adds a constant and returns its index; an integer one has `scales` per channel of its first axis."""
        buffer = lce.schema().BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return self._tensor(name, values.shape, str(values.dtype), len(self.model.buffers) - 1, scales)

    def value(self, name: str, shape: Sequence[int]) -> int:
        """Adds a float tensor for an operator to write, and returns its index."""
        return self._tensor(name, shape, "float32", 0, None)

    def computed(self, tensor: Tensor, name: str) -> int:
        """Renames a constant and turns it into a computed tensor, for an added operator to write."""
        changed = self._graph.tensors[tensor.index]
        changed.name, changed.buffer = name.encode(), 0
        return tensor.index

    def add(
        self, name: str, version: int, inputs: Sequence[int], output: int, options: str = "", **fields: int
    ) -> None:
        """Adds an operator; `options` is the class of its options, such as "MulOptions", and `fields` their values."""
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
        """Makes an operator read another tensor, and optionally gives it another version."""
        changed = self._graph.operators[operator]
        changed.inputs = np.array(changed.inputs, np.int32)
        changed.inputs[position] = tensor
        if version is not None:
            code = self.model.operatorCodes[changed.opcodeIndex]
            names = {value: name for name, value in vars(lce.schema().BuiltinOperator).items()}
            changed.opcodeIndex = self._code(names[max(code.builtinCode, code.deprecatedBuiltinCode)], version)

    def file(self) -> File:
        """The changed file, without the constants that are no longer used."""
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
        """The index of an operator code, which is added if it is new."""
        if (name, version) not in self._codes:
            schema = lce.schema()
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            # Codes above 127 do not fit into the older field, which then holds a placeholder.
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = version
            self.model.operatorCodes.append(code)
            self._codes[name, version] = len(self.model.operatorCodes) - 1
        return self._codes[name, version]
