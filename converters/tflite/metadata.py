"""What an app needs to know about a file, in the form that TensorFlow Lite's tools read.

A TFLite file may contain an entry `TFLITE_METADATA`, a FlatBuffer with a schema of its own (metadata_schema.fbs), and
end with a ZIP archive of the files that the entry names: here `labels.txt`.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import flatbuffers
import flatbuffers.encode
import flatbuffers.packer
import flatbuffers.table
import numpy as np

import kbnn
from kbnn import labels as class_names
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File, Tensor
from kbnn.errors import KbnnError

ENTRY = "TFLITE_METADATA"
LABELS = "labels.txt"
# A million classes; an archive can claim to unfold to much more.
_MOST_LABEL_BYTES = 2**24
_IDENTIFIER = b"M001"
_MIN_PARSER_VERSION = "1.0.0"
# Numbers of the schema.
_IMAGE_PROPERTIES, _NORMALIZATION, _AXIS_LABELS = 2, 1, 2
_COLOR_SPACES = {1: 2, 3: 1}


@dataclass(frozen=True)
class Description:
    """`mean` and `std` are per channel, of pixel values 0..255: the network's input is (pixel - mean) / std."""

    model: str = ""
    recipe: str = ""
    dataset: str = ""
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # Labels are stored one a line.
        class_names.check(self.labels)

    @staticmethod
    def of(data: Any, recipe: str = "", model: str = "") -> "Description":
        """The description of a network trained on a `kbnn.datasets.Dataset`."""
        normalization = data.normalization
        return Description(
            model, recipe, data.name, tuple(data.classes), tuple(normalization.mean), tuple(normalization.std)
        )

    def of_model(self, name: str) -> "Description":
        """This description with a model's name, unless it has a name already."""
        return replace(self, model=self.model or name)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def with_metadata(file: File, description: Description) -> bytes:
    """The file with metadata, followed by an archive of its labels.

    Raises:
        UsageError: a label cannot be stored on a line of its own, or no output of the file has as many values.
    """
    sizes = [tensor.shape[-1] for tensor in file.outputs.values() if tensor.shape]
    class_names.check(description.labels, None if len(description.labels) in sizes else max(sizes, default=0))
    model = flatbuffer.tree(file.data)
    flatbuffer.add_metadata(model, ENTRY, _entry(file, description))
    data = flatbuffer.pack(model)
    return _with_archive(data, {LABELS: "\n".join(description.labels)}) if description.labels else data


def labels(file: File) -> list[str]:
    """The labels in the archive behind a file; empty if there is none, or an unreadable one."""
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            if archive.getinfo(LABELS).file_size > _MOST_LABEL_BYTES:
                return []
            text = archive.read(LABELS).decode()
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError):
        # Archives of strangers: damaged, encrypted, or of an unknown kind.
        return []
    # Not `splitlines`, which also splits at characters that a label may hold, such as U+2028.
    lines = re.split(r"\r\n|\n|\r", text)
    return lines[:-1] if lines[-1] == "" else lines


def _with_archive(data: bytes, contents: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in contents.items():
            # A fixed date: the same model gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


def _entry(file: File, description: Description) -> bytes:
    about = [
        "binary network",
        description.recipe and f"recipe {description.recipe}",
        description.dataset and f"trained on {description.dataset}",
    ]
    graph = _Table(
        {
            0: description.model,
            2: [_input(name, tensor, description) for name, tensor in file.inputs.items()],
            3: [_output(name, tensor, description) for name, tensor in file.outputs.items()],
        }
    )
    root = _Table(
        {
            0: description.model,
            1: ", ".join(filter(None, about)),
            2: f"kbnn {kbnn.__version__}",
            3: [graph],
            7: _MIN_PARSER_VERSION,
        }
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.write(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _input(name: str, tensor: Tensor, description: Description) -> "_Table":
    slots: dict[int, Any] = {0: name, 1: "pixels, normalized" if description.mean else "the network's input"}
    if len(tensor.shape) == 4:
        _, height, width, channels = tensor.shape
        size = _Table({0: _Unsigned(width), 1: _Unsigned(height)})
        image = _Table({0: _Byte(_COLOR_SPACES.get(channels, 0)), 1: size})
        slots[3] = _Table({0: _Octet(_IMAGE_PROPERTIES), 1: image})
    if description.mean:
        mean, std = np.asarray(description.mean), np.asarray(description.std)
        normalization = _Table({0: list(description.mean), 1: list(description.std)})
        slots[4] = [_Table({0: _Octet(_NORMALIZATION), 1: normalization})]
        slots[5] = _Table({0: list((255 - mean) / std), 1: list(-mean / std)})
    return _Table(slots)


def _output(name: str, tensor: Tensor, description: Description) -> "_Table":
    slots: dict[int, Any] = {0: name, 1: "logits, one per class"}
    if len(description.labels) == tensor.shape[-1]:
        slots[6] = [_Table({0: LABELS, 1: "a line per class", 2: _Byte(_AXIS_LABELS)})]
    return _Table(slots)


class _Octet(int):
    """An unsigned byte."""


class _Byte(int):
    """A signed byte."""


class _Unsigned(int):
    """An unsigned number of 32 bits."""


@dataclass(frozen=True)
class _Table:
    """A FlatBuffers table: values by field number; empty values are left out."""

    slots: Mapping[int, Any]

    def write(self, builder: flatbuffers.Builder) -> int:
        """Writes the parts that it refers to, then the table; returns its offset."""
        filled = {slot: value for slot, value in self.slots.items() if isinstance(value, int) or value}
        written = {slot: _written(builder, value) for slot, value in filled.items()}
        builder.StartObject(max(written, default=0) + 1)
        for slot, value in written.items():
            if isinstance(value, _Octet):
                builder.PrependUint8Slot(slot, int(value), 0)
            elif isinstance(value, _Byte):
                builder.PrependInt8Slot(slot, int(value), 0)
            elif isinstance(value, _Unsigned):
                builder.PrependUint32Slot(slot, int(value), 0)
            else:
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return int(builder.EndObject())


def _written(builder: flatbuffers.Builder, value: Any) -> int:
    """A number unchanged; the offset of anything else."""
    if isinstance(value, _Octet | _Byte | _Unsigned):
        return value
    if isinstance(value, _Table):
        return value.write(builder)
    if isinstance(value, str):
        return int(builder.CreateString(value))
    return _vector(builder, value)


def _vector(builder: flatbuffers.Builder, values: Sequence[Any]) -> int:
    if isinstance(values[0], _Table):
        offsets = [value.write(builder) for value in values]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    return int(builder.CreateNumpyVector(np.asarray(values, np.float32)))


def describe(file: File) -> Description:
    """What a file's metadata say about its labels and normalization; empty where they say nothing.

    Raises:
        KbnnError: the metadata are damaged.
    """
    content = file.metadata.get(ENTRY)
    found = Description(labels=tuple(labels(file)))
    if content is None:
        return found
    try:
        root = flatbuffers.table.Table(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))
        name = _text_at(root, 0)
        for graph in _tables_at(root, 3):
            for tensor in _tables_at(graph, 2):
                for unit in _tables_at(tensor, 4):
                    options = _table_at(unit, 1)
                    if options is not None and _number_at(unit, 0) == _NORMALIZATION:
                        found = replace(found, mean=_floats_at(options, 0), std=_floats_at(options, 1))
        return replace(found, model=name)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        raise KbnnError(f"the file's metadata are damaged ({error}): convert the model again") from error


# Tensors, values of a normalization and the like: metadata have a handful of each.
_MOST = 4096


def _offset(table: Any, slot: int) -> int:
    """Where a field is, 0 where it is absent."""
    found = int(table.Offset(4 + 2 * slot))
    return found + table.Pos if found else 0


def _number_at(table: Any, slot: int) -> int:
    place = _offset(table, slot)
    return int(table.Bytes[place]) if place else 0


def _text_at(table: Any, slot: int) -> str:
    place = _offset(table, slot)
    return bytes(table.String(place)).decode(errors="replace") if place else ""


def _table_at(table: Any, slot: int) -> Any:
    place = _offset(table, slot)
    return flatbuffers.table.Table(table.Bytes, table.Indirect(place)) if place else None


def _vector_at(table: Any, slot: int) -> tuple[int, int]:
    """Start and length of a vector."""
    place = _offset(table, slot)
    if not place:
        return 0, 0
    length = int(table.VectorLen(place - table.Pos))
    if length > _MOST:
        raise ValueError(f"{length} entries")
    return int(table.Vector(place - table.Pos)), length


def _tables_at(table: Any, slot: int) -> list[Any]:
    start, length = _vector_at(table, slot)
    return [flatbuffers.table.Table(table.Bytes, table.Indirect(start + 4 * k)) for k in range(length)]


def _floats_at(table: Any, slot: int) -> tuple[float, ...]:
    start, length = _vector_at(table, slot)
    return tuple(float(value) for value in np.frombuffer(table.Bytes, "<f4", length, start))
