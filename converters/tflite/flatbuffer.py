"""Reads and writes TFLite files as plain Python values.

A damaged or hostile file raises one error; it never hangs, crashes or exhausts the memory. Everything that is read is
charged against a budget proportional to the size of the file, and sizes and indices are checked before they are used.
"""

import collections
import dataclasses
import functools
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers

from kbnn.converters.tflite import budget, lce
from kbnn.converters.tflite.lce import SchemaObject
from kbnn.errors import KbnnError, UsageError
from kbnn.printable import printable

# The attributes of an operator by name; their types depend on the operator.
Attributes: TypeAlias = dict[str, Any]
_T = TypeVar("_T")

# The format's offsets are signed 32-bit numbers.
LARGEST = 2**31 - 1
# An interpreter would allocate a larger tensor; no network for a device has one.
_MOST_ELEMENTS = 2**31 - 1
# TensorFlow Lite's kernels take up to 8.
_MOST_DIMENSIONS = 32
# LCE's operators have fewer than 16 attributes with short names.
_MOST_OPTION_BYTES = 4096
_MOST_OPTIONS = 64
# Operators that change the shape or the type of a value.
_CHANGE_FORM = ("CAST", "DEQUANTIZE", "EXPAND_DIMS", "QUANTIZE", "RESHAPE", "SQUEEZE")
_LINEAR = ("CONV_2D", "FULLY_CONNECTED", "LceBconv2d")
# How HDF5 files and ZIP archives begin.
_KERAS = (b"\x89HDF", b"PK\x03\x04")
_HEADER = 8
# A hostile file can give many operators the same long name.
_LONGEST_NAME = 2000
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")
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
    """`data` holds the bytes of a constant, None for an activation; quantized tensors have scales and zero points."""

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
            ValueError: it is not a constant, or its bytes do not fill its shape.
        """
        if self.data is None:
            raise ValueError(f"'{self.name}' is not a constant")
        return self.data.view(self.dtype).reshape(self.shape)

    @property
    def is_quantized(self) -> bool:
        """Whether its integers stand for real values: scale * (value - zero point)."""
        return self.dtype in INTEGERS and bool(self.scales) and bool(self.zero_points)

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Real values as the tensor stores them."""
        if not self.is_quantized:
            return values.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        levels = np.rint(values / self.scales[0]) + self.zero_points[0]
        return np.clip(levels, limits.min, limits.max).astype(self.dtype)

    def real(self, values: np.ndarray) -> np.ndarray:
        """The real values of values as the tensor stores them."""
        if not self.is_quantized:
            return values
        return (values.astype(np.float32) - self.zero_points[0]) * np.float32(self.scales[0])


@dataclass(frozen=True)
class Operator:
    """An operator; optional inputs that are left out are None, and `options` holds its attributes."""

    index: int
    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Attributes

    @property
    def operands(self) -> list[Tensor]:
        """The inputs that are not constants."""
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
        """Whether any operator belongs to Larq Compute Engine."""
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

    def is_sigmoid(self, tensor: Tensor) -> bool | None:
        """Whether a tensor holds the results of a sigmoid; None if neither a sigmoid nor a linear layer computes it."""
        for _ in self.operators:
            operator = self.producers.get(tensor.index)
            if operator is None or operator.name not in _CHANGE_FORM or not operator.operands:
                name = "" if operator is None else operator.name
                return name == "LOGISTIC" if name == "LOGISTIC" or name in _LINEAR else None
            tensor = operator.operands[0]
        return None

    @functools.cached_property
    def output_names(self) -> dict[int, str]:
        """Tensor index -> the name of the output that it is."""
        return {tensor.index: name for name, tensor in self.outputs.items()}

    @functools.cached_property
    def scope(self) -> str:
        """The model's name, with which most tensor names begin; "" in kbnn's own files, which leave it out."""
        names = (operator.outputs[0].name[:_LONGEST_NAME] for operator in self.operators if operator.outputs)
        heads = collections.Counter(name.partition("/")[0] for name in names if "/" in name)
        name, count = heads.most_common(1)[0] if heads else ("", 0)
        return name if 2 * count > len(self.operators) else ""


def read(path: str | os.PathLike[str]) -> File:
    """Reads a TFLite file.

    Raises:
        UsageError: there is no such file, or it is not a regular file.
        KbnnError: it is empty, too large, truncated, damaged or not a TFLite file.
    """
    return parse(content(path), path)


def content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a TFLite file; the size and the header are checked before the rest is read.

    Raises:
        UsageError: there is no such file, or it is not a regular file.
        KbnnError: it is empty, larger than 2 GB, or not a TFLite file.
    """
    source = Path(path)
    try:
        with open(source, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"cannot read '{source}': it is not a regular file; give the path of a .tflite file")
            if status.st_size > LARGEST:
                raise _unreadable(source, f"it has {status.st_size} bytes, more than the format's 2 GB")
            header = file.read(_HEADER)
            _check_header(header, source)
            return header + file.read(status.st_size - len(header))
    except FileNotFoundError as error:
        raise UsageError(f"no such file: received '{source}', give the path of a .tflite file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, KbnnError):
            raise
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read '{source}': {why}; give the path of a .tflite file") from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a file in non-blocking mode: a pipe would otherwise wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse(data: bytes, source: str | os.PathLike[str] = "the file") -> File:
    """Reads a TFLite file from bytes; error messages name `source`. See `read`."""
    _check_header(data, source)
    try:
        with budget.limited(len(data)):
            return _file(lce.schema().Model.GetRootAs(data, 0), data)
    except Exception as error:
        # Damaged bytes make the generated readers raise anything, struct.error and MemoryError included.
        raise _damaged(source, error) from error


def tree(data: bytes, source: str | os.PathLike[str] = "the file") -> SchemaObject:
    """Reads a whole file as a mutable tree of the schema's objects.

    Raises:
        KbnnError: the bytes are damaged.
    """
    try:
        with budget.limited(len(data)):
            return lce.schema().ModelT.InitFromObj(lce.schema().Model.GetRootAs(data, 0))
    except Exception as error:
        raise _damaged(source, error) from error


def pack(model: SchemaObject) -> bytes:
    """Writes a tree as bytes; equal trees give equal bytes."""
    builder = _AlignedBuilder(1024)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except Exception as error:
        # The generated writers raise various exceptions for the values of a damaged file.
        raise KbnnError(f"cannot rewrite the .tflite file: it is damaged ({error}); convert the model again") from error
    return bytes(builder.Output())


def add_metadata(model: SchemaObject, name: str, data: bytes) -> None:
    """Adds an entry to a tree's metadata, or replaces the entry of the same name."""
    buffer = lce.schema().BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    entry = lce.schema().MetadataT()
    entry.name, entry.buffer = name.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [other for other in model.metadata or () if other.name != entry.name] + [entry]


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns byte vectors to 16 bytes: the format requires it of constants, but the generated writers do not do it."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def _unreadable(source: str | os.PathLike[str], why: str) -> KbnnError:
    return KbnnError(f"cannot read '{os.fspath(source)}' as a .tflite file: {why}; convert the model again")


def _damaged(source: str | os.PathLike[str], error: Exception) -> KbnnError:
    return _unreadable(source, f"it is truncated or damaged ({error or type(error).__name__})")


def _check_header(data: bytes, source: str | os.PathLike[str]) -> None:
    if not data:
        raise _unreadable(source, "it is empty")
    if data.startswith(_KERAS):
        raise KbnnError(
            f"cannot read '{os.fspath(source)}' as a .tflite file: it is a Keras model; convert it with kbnn convert"
        )
    if data[4:_HEADER] != b"TFL3":
        raise _unreadable(source, "it is not a TFLite file")


def _file(model: SchemaObject, data: bytes) -> File:
    if model.SubgraphsLength() == 0:
        raise ValueError("it contains no graph")
    graph = model.Subgraphs(0)
    buffers = [_values(model.Buffers(k).DataAsNumpy()) for k in range(model.BuffersLength())]
    tensors = tuple(_tensor(k, graph.Tensors(k), buffers) for k in range(graph.TensorsLength()))
    names = [_operator_name(model.OperatorCodes(k)) for k in range(model.OperatorCodesLength())]
    operators = tuple(_operator(k, graph.Operators(k), names, tensors) for k in range(graph.OperatorsLength()))
    inputs, outputs = _signature(model, graph, tensors)
    return File(tensors, operators, inputs, outputs, _metadata(model, buffers), len(data), data)


def _tensor(index: int, tensor: SchemaObject, buffers: list[np.ndarray]) -> Tensor:
    kind, quantization = _type_names()[tensor.Type()], tensor.Quantization()
    constant = _at(buffers, tensor.Buffer())
    return Tensor(
        index=index,
        name=_text(tensor.Name()),
        shape=_shape(_values(tensor.ShapeAsNumpy())),
        dtype=_DTYPES.get(kind, kind.lower()),
        data=np.asarray(constant, np.uint8) if len(constant) else None,
        scales=tuple(float(scale) for scale in _values(quantization and quantization.ScaleAsNumpy())),
        zero_points=tuple(int(point) for point in _values(quantization and quantization.ZeroPointAsNumpy())),
    )


def _shape(sizes: np.ndarray) -> tuple[int, ...]:
    if len(sizes) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {len(sizes)} dimensions, more than {_MOST_DIMENSIONS}")
    shape = tuple(int(size) for size in sizes)
    if any(size < 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"a tensor of shape {shape}, more than {_MOST_ELEMENTS:,} values")
    return shape


def _operator(index: int, operator: SchemaObject, names: list[str], tensors: tuple[Tensor, ...]) -> Operator:
    name = _at(names, operator.OpcodeIndex())
    return Operator(
        index=index,
        name=name,
        inputs=tuple(None if t == -1 else _at(tensors, t) for t in _values(operator.InputsAsNumpy())),
        outputs=tuple(_at(tensors, t) for t in _values(operator.OutputsAsNumpy())),
        options=_lce_options(operator) if name.startswith("Lce") else _builtin_options(operator),
    )


def _operator_name(code: SchemaObject) -> str:
    custom = code.CustomCode()
    if custom:
        return _text(custom)
    # Codes above 127 do not fit into the older field, which then holds a placeholder.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return _builtin_codes().get(number, f"BUILTIN_{number}")


@functools.cache
def _builtin_codes() -> dict[int, str]:
    return {value: name for name, value in vars(lce.schema().BuiltinOperator).items() if isinstance(value, int)}


@functools.cache
def builtin_names() -> frozenset[str]:
    """The names of TensorFlow Lite's own operators."""
    return frozenset(_builtin_codes().values())


@functools.cache
def _type_names() -> dict[int, str]:
    return {value: name for name, value in vars(lce.schema().TensorType).items() if isinstance(value, int)}


@functools.cache
def _option_classes() -> dict[int, SchemaObject]:
    schema = lce.schema()
    kinds = {name: value for name, value in vars(schema.BuiltinOptions).items() if isinstance(value, int) and value}
    return {value: getattr(schema, f"{name}T") for name, value in kinds.items()}


def _builtin_options(operator: SchemaObject) -> Attributes:
    table, kind = operator.BuiltinOptions(), operator.BuiltinOptionsType()
    if table is None or kind not in _option_classes():
        return {}
    return dict(vars(_option_classes()[kind].InitFromBuf(table.Bytes, table.Pos)))


def _lce_options(operator: SchemaObject) -> Attributes:
    packed = _values(operator.CustomOptionsAsNumpy())
    if len(packed) == 0:
        return {}
    if len(packed) > _MOST_OPTION_BYTES:
        raise ValueError(f"an operator with {len(packed)} bytes of options, more than {_MOST_OPTION_BYTES}")
    root = flexbuffers.GetRoot(bytearray(bytes(packed)))
    if not root.IsMap:
        return {}
    fields = root.AsMap
    if len(fields) > _MOST_OPTIONS:
        raise ValueError(f"an operator with {len(fields)} options, more than {_MOST_OPTIONS}")
    # Numbers only: LCE has no other attributes, and nested values of a hostile file could be endless.
    return {fields.Keys[k].AsKey: fields.Values[k].AsInt for k in range(len(fields)) if fields.Values[k].IsInt}


def _signature(
    model: SchemaObject, graph: SchemaObject, tensors: tuple[Tensor, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and outputs by their names in the signature; in a file without one by the names of their tensors."""
    inputs = [_at(tensors, t) for t in _values(graph.InputsAsNumpy())]
    outputs = [_at(tensors, t) for t in _values(graph.OutputsAsNumpy())]
    if not model.SignatureDefsLength():
        return _by_name(inputs, []), _by_name(outputs, [])
    signature = model.SignatureDefs(0)
    return (
        _by_name(inputs, [signature.Inputs(k) for k in range(signature.InputsLength())]),
        _by_name(outputs, [signature.Outputs(k) for k in range(signature.OutputsLength())]),
    )


def _by_name(tensors: list[Tensor], entries: list[SchemaObject]) -> dict[str, Tensor]:
    """Tensors by their names in a signature, in the graph's order; a tensor may have several names.

    Without a name in the signature it is that of the tensor, with the tensor's number if another one has it, too.
    """
    names: dict[int, list[str]] = {}
    for entry in entries:
        names.setdefault(entry.TensorIndex(), []).append(_text(entry.Name()))
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        name = (names.get(tensor.index) or [tensor.name]).pop(0)
        is_taken = found.get(name, tensor) is not tensor
        found[f"{name}:{tensor.index}" if is_taken else name] = tensor
    return found


def _metadata(model: SchemaObject, buffers: list[np.ndarray]) -> dict[str, bytes]:
    found = {}
    for k in range(model.MetadataLength()):
        entry = model.Metadata(k)
        data = _at(buffers, entry.Buffer())
        # Charged for each entry: entries can share a buffer, but each gets a copy.
        budget.spend(size=len(data))
        found[_text(entry.Name())] = bytes(data)
    return found


def _text(value: bytes | None) -> str:
    """A name, in which control characters are escaped: reports print names, and a line break would add lines."""
    return printable((value or b"").decode())


def _values(vector: np.ndarray | int | None) -> np.ndarray:
    """A vector of the file; an absent one, which reads as None or 0, becomes an empty one."""
    return np.empty(0, np.uint8) if vector is None or isinstance(vector, int) else vector


def _at(items: Sequence[_T], index: int) -> _T:
    if not 0 <= index < len(items):
        raise ValueError(f"an index of {index} into {len(items)} entries")
    return items[index]
