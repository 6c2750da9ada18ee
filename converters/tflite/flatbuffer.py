"""Reading and writing TFLite files as plain Python values.

A file that is damaged or hostile must cost one error, never a hang or a crash: all counts are checked against the
file's size before anything is unpacked, all indices before anything is looked up.
"""

import dataclasses
import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers

from kbnn.converters.tflite import lce
from kbnn.errors import KbnnError, UsageError

# The format's offsets are 32 bit and signed.
LARGEST = 2**31 - 1
# Products of shapes beyond this are no network for a phone, and would make an interpreter allocate them.
_MOST_ELEMENTS = 2**31 - 1
_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "INT32": "int32",
    "UINT8": "uint8",
    "INT64": "int64",
    "BOOL": "bool",
    "INT16": "int16",
    "INT8": "int8",
    "FLOAT64": "float64",
}


@dataclass(frozen=True)
class Tensor:
    """`data` is the constant's bytes, None for an activation; `scales` and `zero_points` are those of int8 tensors."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None = dataclasses.field(default=None, repr=False)
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()

    @property
    def size_bytes(self) -> int:
        return 0 if self.data is None else self.data.nbytes

    def value(self) -> np.ndarray:
        """The constant as an array.

        Raises:
            ValueError: it is no constant, or its bytes do not fill its shape.
        """
        if self.data is None:
            raise ValueError(f"'{self.name}' is not a constant")
        return self.data.view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Operator:
    """`inputs` holds None where an optional input is left out; `options` are the operator's attributes by name."""

    index: int
    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: dict[str, Any]

    @property
    def operands(self) -> list[Tensor]:
        """The inputs that are computed, not constant."""
        return [tensor for tensor in self.inputs if tensor is not None and tensor.data is None]


@dataclass(frozen=True)
class File:
    """The main subgraph of a TFLite file, in execution order. `inputs` and `outputs` are by signature name."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    metadata: dict[str, bytes]
    size_bytes: int
    data: bytes = dataclasses.field(repr=False)

    @property
    def is_lce(self) -> bool:
        """Whether any operator is Larq Compute Engine's."""
        return any(operator.name.startswith("Lce") for operator in self.operators)

    @functools.cached_property
    def producers(self) -> dict[int, Operator]:
        """Tensor index -> the operator that computes it."""
        return {output.index: operator for operator in self.operators for output in operator.outputs}

    @functools.cached_property
    def consumers(self) -> dict[int, list[Operator]]:
        """Tensor index -> the operators that read it."""
        found: dict[int, list[Operator]] = {tensor.index: [] for tensor in self.tensors}
        for operator in self.operators:
            for tensor in operator.operands:
                found[tensor.index].append(operator)
        return found


def read(path: str | os.PathLike[str]) -> File:
    """Reads a TFLite file.

    Raises:
        UsageError: there is no such file.
        KbnnError: it is empty, too large, truncated, damaged or no TFLite file.
    """
    source = Path(path)
    try:
        size = source.stat().st_size
        if size > LARGEST:
            raise _unreadable(source, f"it has {size} bytes, more than the format's 2 GB")
        data = source.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"no such file: received '{source}', give the path of a .tflite file") from error
    except OSError as error:
        raise UsageError(f"cannot read '{source}': {error.strerror}; give the path of a .tflite file") from error
    return parse(data, source)


def parse(data: bytes, source: str | os.PathLike[str] = "the file") -> File:
    """`read` for bytes at hand; `source` is what the error names."""
    if not data:
        raise _unreadable(source, "it is empty")
    if data[4:8] != b"TFL3":
        raise _unreadable(source, "it does not begin as a TFLite file does")
    try:
        return _file(tree(data), data)
    except Exception as error:
        # Damaged bytes make the generated readers raise anything, struct.error and MemoryError included.
        raise _unreadable(source, f"it is truncated or damaged ({error or type(error).__name__})") from error


def tree(data: bytes) -> Any:
    """The whole file as a changeable tree of the schema's objects.

    Raises:
        Exception: of many kinds, when the bytes are damaged; `parse` tells.
    """
    root = lce.schema().Model.GetRootAs(data, 0)
    _check_counts(root, limit=len(data))
    return lce.schema().ModelT.InitFromObj(root)


def pack(model: Any) -> bytes:
    """The bytes of a tree; equal trees give equal bytes."""
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def add_metadata(model: Any, name: str, data: bytes) -> None:
    """Adds an entry to a tree's metadata, or replaces the one of the same name."""
    buffer = lce.schema().BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    entry = lce.schema().MetadataT()
    entry.name, entry.buffer = name.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [other for other in model.metadata or () if other.name != entry.name] + [entry]


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns byte vectors to 16, as the format wants constants; the generated writers forget it."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def _unreadable(source: str | os.PathLike[str], why: str) -> KbnnError:
    return KbnnError(f"cannot read '{os.fspath(source)}' as a .tflite file: {why}; convert the model again")


def _check_counts(root: Any, limit: int) -> None:
    """Refuses files that claim more tables than they have room for: shared tables could make unpacking endless."""
    total = root.OperatorCodesLength() + root.BuffersLength() + root.MetadataLength() + root.SubgraphsLength()
    for k in range(_within(root.SignatureDefsLength(), limit)):
        total += root.SignatureDefs(k).InputsLength() + root.SignatureDefs(k).OutputsLength()
    for k in range(_within(root.SubgraphsLength(), limit)):
        subgraph = root.Subgraphs(k)
        total += subgraph.OperatorsLength() + subgraph.TensorsLength()
        for i in range(_within(subgraph.TensorsLength(), limit - total)):
            total += subgraph.Tensors(i).VariantTensorsLength()
            sparsity = subgraph.Tensors(i).Sparsity()
            total += sparsity.DimMetadataLength() if sparsity else 0
    _within(total, limit)


def _within(count: int, limit: int) -> int:
    # Every table takes at least an offset of 4 bytes.
    if count > limit // 4:
        raise ValueError("it claims more parts than it has room for")
    return count


def _file(model: Any, data: bytes) -> File:
    if not model.subgraphs:
        raise ValueError("it holds no graph")
    graph = model.subgraphs[0]
    tensors = tuple(_tensor(k, graph.tensors[k], model) for k in range(len(graph.tensors)))
    operators = tuple(_operator(k, graph.operators[k], model, tensors) for k in range(len(graph.operators or ())))
    inputs, outputs = _signature(model, graph, tensors)
    return File(tensors, operators, inputs, outputs, _metadata(model), len(data), data)


def _tensor(index: int, tensor: Any, model: Any) -> Tensor:
    shape = tuple(int(size) for size in _values(tensor.shape))
    if any(size < 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"a tensor of shape {shape}")
    names = {value: name for name, value in vars(lce.schema().TensorType).items() if isinstance(value, int)}
    quantization = tensor.quantization
    return Tensor(
        index=index,
        name=(tensor.name or b"").decode(),
        shape=shape,
        dtype=_DTYPES.get(names[tensor.type], names[tensor.type].lower()),
        data=_constant(_at(model.buffers, tensor.buffer)),
        scales=tuple(float(scale) for scale in _values(quantization and quantization.scale)),
        zero_points=tuple(int(point) for point in _values(quantization and quantization.zeroPoint)),
    )


def _constant(buffer: Any) -> np.ndarray | None:
    return None if len(_values(buffer.data)) == 0 else np.asarray(buffer.data, np.uint8)


def _operator(index: int, operator: Any, model: Any, tensors: tuple[Tensor, ...]) -> Operator:
    code = _at(model.operatorCodes, operator.opcodeIndex)
    return Operator(
        index=index,
        name=_operator_name(code),
        inputs=tuple(None if t == -1 else _at(tensors, t) for t in _values(operator.inputs)),
        outputs=tuple(_at(tensors, t) for t in _values(operator.outputs)),
        options=_options(operator),
    )


def _operator_name(code: Any) -> str:
    if code.customCode:
        return code.customCode.decode()
    # Codes above 127 do not fit the field of the format's first years, which then holds a placeholder.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _builtin_names().get(number, f"BUILTIN_{number}")


@functools.cache
def _builtin_names() -> dict[int, str]:
    return {value: name for name, value in vars(lce.schema().BuiltinOperator).items() if isinstance(value, int)}


def _options(operator: Any) -> dict[str, Any]:
    if operator.builtinOptions is not None:
        return dict(vars(operator.builtinOptions))
    if len(_values(operator.customOptions)) == 0:
        return {}
    root = flexbuffers.GetRoot(bytearray(bytes(operator.customOptions)))
    if not root.IsMap:
        return {}
    # Numbers alone: LCE has no other attributes, and nested values could be made to unfold without end.
    fields = root.AsMap
    return {fields.Keys[k].AsKey: fields.Values[k].AsInt for k in range(len(fields)) if fields.Values[k].IsInt}


def _signature(model: Any, graph: Any, tensors: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The names that an app uses; the tensors' own in a file without a signature."""
    inputs = [_at(tensors, t) for t in _values(graph.inputs)]
    outputs = [_at(tensors, t) for t in _values(graph.outputs)]
    if not model.signatureDefs:
        return {tensor.name: tensor for tensor in inputs}, {tensor.name: tensor for tensor in outputs}
    signature = model.signatureDefs[0]
    names = {entry.tensorIndex: entry.name.decode() for entry in [*signature.inputs, *signature.outputs]}
    return (
        {names.get(tensor.index, tensor.name): tensor for tensor in inputs},
        {names.get(tensor.index, tensor.name): tensor for tensor in outputs},
    )


def _metadata(model: Any) -> dict[str, bytes]:
    return {
        (entry.name or b"").decode(): bytes(_values(_at(model.buffers, entry.buffer).data))
        for entry in model.metadata or ()
    }


def _values(vector: Any) -> Any:
    """A vector of the file; one that is left out is empty. (Absent vectors read as None, or as 0 in old readers.)"""
    return () if vector is None or isinstance(vector, int) else vector


def _at(items: Any, index: int) -> Any:
    if not 0 <= index < len(items or ()):
        raise ValueError(f"an index of {index} where {len(items or ())} are there")
    return items[index]
