"""The metadata of a file that apps need, in the form that TensorFlow Lite's tools read.

A TFLite file may contain an entry `TFLITE_METADATA`, which is a FlatBuffer with its own schema (metadata_schema.fbs).
It may end with a ZIP archive of the files that this entry names; kbnn's files have a `labels.txt` there.
"""

import contextlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import flatbuffers
import flatbuffers.encode
import flatbuffers.packer
import numpy as np

import kbnn
from kbnn import labels as class_names
from kbnn.converters.tflite import budget, flatbuffer
from kbnn.converters.tflite.budget import MeteredTable
from kbnn.converters.tflite.flatbuffer import File, Tensor
from kbnn.errors import KbnnError

if TYPE_CHECKING:
    from kbnn.datasets import Dataset, Normalization, Transform

ENTRY = "TFLITE_METADATA"
# kbnn's own entry: how pictures are resized, for which TensorFlow Lite's schema has no field.
FRAMING = "KBNN_FRAMING"
LABELS = "labels.txt"
# Enough for a million classes; a hostile archive can unpack to much more.
_MOST_LABEL_BYTES = 2**24
# The most entries of a vector; real metadata has a handful.
_MOST_ENTRIES = 4096
_IDENTIFIER = b"M001"
_MIN_PARSER_VERSION = "1.0.0"
# Numbers of the schema.
_IMAGE_PROPERTIES, _NORMALIZATION, _AXIS_LABELS = 2, 1, 2
_COLOR_SPACES = {1: 2, 3: 1}
# What reading damaged metadata raises.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError)


@dataclass(frozen=True)
class Description:
    """What an app needs to know about a network.

    The network's input is (pixel - mean) / std for pixel values 0..255; `mean` and `std` have one number per channel.
    A picture's middle is cut out after its shorter side, or with `square` each side, is resized to `resize` pixels; by
    default, to the longer side of the input.
    """

    model: str = ""
    recipe: str = ""
    dataset: str = ""
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int | None = None
    square: bool = False

    def __post_init__(self) -> None:
        # Labels are stored one per line.
        class_names.check(self.labels)

    @staticmethod
    def of(data: "Dataset", recipe: str = "", model: str = "") -> "Description":
        """The description of a network that was trained on a data set; without its input for float images."""
        described = Description(model, recipe, data.name, tuple(data.classes))
        return described.with_input(data.normalization, data.framing) if data.takes_pixels else described

    def with_input(self, normalization: "Normalization", framing: "Transform") -> "Description":
        """This description with how pictures become the network's input."""
        mean, std = tuple(normalization.mean), tuple(normalization.std)
        return replace(self, mean=mean, std=std, resize=framing.resize, square=framing.square)

    def of_model(self, name: str) -> "Description":
        """This description with the name of a model, unless it has one already."""
        return replace(self, model=self.model or name)

    def to_json(self) -> dict[str, object]:
        """All fields except those in the entry `FRAMING`."""
        return {key: value for key, value in asdict(self).items() if key not in ("resize", "square")}


def with_metadata(file: File, description: Description) -> bytes:
    """Adds metadata to a file, and appends an archive with its labels.

    Raises:
        UsageError: a label contains a line break, or no output of the file has as many values as there are labels, or
            one value for two labels.
    """
    sizes = [tensor.shape[-1] for tensor in file.outputs.values() if tensor.shape]
    class_names.check(description.labels, None if len(description.labels) in sizes else max(sizes, default=0))
    model = flatbuffer.tree(file.data)
    flatbuffer.add_metadata(model, ENTRY, _entry(file, description))
    if description.resize is not None:
        values = {"resize": description.resize, "square": description.square}
        flatbuffer.add_metadata(model, FRAMING, json.dumps(values).encode())
    data = flatbuffer.pack(model)
    return _with_archive(data, {LABELS: "\n".join(description.labels)}) if description.labels else data


def labels(file: File) -> list[str]:
    """The labels in the archive at the end of a file; empty if there is no archive, or an unreadable one.

    The metadata names their file, which other tools than kbnn call by any name.
    """
    name = _labels_name(file)
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            if archive.getinfo(name).file_size > _MOST_LABEL_BYTES:
                return []
            text = archive.read(name).decode()
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError):
        # The archive is damaged, encrypted or of an unknown kind.
        return []
    # Not `splitlines`, which also splits at characters that a label may contain, such as U+2028.
    lines = re.split(r"\r\n|\n|\r", text)
    return lines[:-1] if lines[-1] == "" else lines


def _labels_name(file: File) -> str:
    """The name of the file with an output's labels, in the archive; kbnn's own if damaged metadata does not tell."""
    with contextlib.suppress(*_DAMAGE), budget.limited(len(file.metadata.get(ENTRY, b""))):
        root = _root(file)
        for graph in _tables_at(root, 3) if root is not None else []:
            for tensor in _tables_at(graph, 3):
                for associated in _tables_at(tensor, 6):
                    if _number_at(associated, 2) == _AXIS_LABELS:
                        return _text_at(associated, 0)
    return LABELS


def _with_archive(data: bytes, contents: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, text in contents.items():
            # A fixed date, so that the same model gives the same bytes.
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
    slots: dict[int, _Value] = {0: name, 1: "pixels, normalized" if description.mean else "the network's input"}
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
    is_single = tensor.shape[-1:] == (1,)
    slots: dict[int, _Value] = {0: name, 1: "the score of the second class" if is_single else "logits, one per class"}
    if tensor.shape[-1:] == (len(description.labels),):
        slots[6] = [_Table({0: LABELS, 1: "a line per class", 2: _Byte(_AXIS_LABELS)})]
    return _Table(slots)


class _Octet(int):
    """An unsigned byte."""


class _Byte(int):
    """A signed byte."""


class _Unsigned(int):
    """An unsigned 32-bit number."""


@dataclass(frozen=True)
class _Table:
    """A FlatBuffers table to be written: values by field number; empty values are left out."""

    slots: Mapping[int, "_Value"]

    def write(self, builder: flatbuffers.Builder) -> int:
        """Writes the values that the table refers to, then the table itself; returns its offset."""
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


_Value: TypeAlias = _Octet | _Byte | _Unsigned | str | _Table | Sequence[float] | Sequence[_Table]


def _written(builder: flatbuffers.Builder, value: _Value) -> int:
    """Writes a value and returns its offset; returns a number unchanged, as it is stored in the table itself."""
    if isinstance(value, _Octet | _Byte | _Unsigned):
        return value
    if isinstance(value, _Table):
        return value.write(builder)
    if isinstance(value, str):
        return int(builder.CreateString(value))
    return _vector(builder, value)


def _vector(builder: flatbuffers.Builder, values: Sequence[float] | Sequence[_Table]) -> int:
    offsets = [value.write(builder) for value in values if isinstance(value, _Table)]
    if offsets:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    return int(builder.CreateNumpyVector(np.asarray(values, np.float32)))


def describe(file: File) -> Description:
    """The labels and the normalization according to a file's metadata; empty if the metadata does not tell.

    Raises:
        KbnnError: the metadata is damaged.
    """
    resize, square = framing(file)
    found = Description(labels=tuple(labels(file)), resize=resize, square=square)
    try:
        with budget.limited(len(file.metadata.get(ENTRY, b""))):
            root = _root(file)
            if root is None:
                return found
            for graph in _tables_at(root, 3):
                for tensor in _tables_at(graph, 2):
                    for unit in _tables_at(tensor, 4):
                        options = _table_at(unit, 1)
                        if options is not None and _number_at(unit, 0) == _NORMALIZATION:
                            found = replace(found, mean=_floats_at(options, 0), std=_floats_at(options, 1))
            return replace(found, model=_text_at(root, 0))
    except _DAMAGE as error:
        raise KbnnError(f"the file's metadata is damaged ({error}): convert the model again") from error


def _root(file: File) -> MeteredTable | None:
    content = file.metadata.get(ENTRY)
    if content is None:
        return None
    return MeteredTable(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))


def framing(file: File) -> tuple[int | None, bool]:
    """`resize` and `square` of a file's description.

    Raises:
        KbnnError: the metadata is damaged.
    """
    content = file.metadata.get(FRAMING)
    if content is None:
        return None, False
    try:
        stored = json.loads(content)
        resize, square = stored["resize"], stored["square"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise KbnnError(f"the file's metadata is damaged ({FRAMING}: {error}): convert the model again") from error
    smallest = max((size for tensor in file.inputs.values() for size in tensor.shape[1:3]), default=1)
    if type(resize) is not int or type(square) is not bool or not smallest <= resize < 2**31:
        raise KbnnError(f"the file's metadata is damaged ({FRAMING}: {resize}, {square}): convert the model again")
    return resize, square


def _offset(table: MeteredTable, slot: int) -> int:
    """The position of a field; 0 if it is absent."""
    found = int(table.Offset(4 + 2 * slot))
    return found + table.Pos if found else 0


def _number_at(table: MeteredTable, slot: int) -> int:
    place = _offset(table, slot)
    return int(table.Bytes[place]) if place else 0


def _text_at(table: MeteredTable, slot: int) -> str:
    place = _offset(table, slot)
    return bytes(table.String(place)).decode(errors="replace") if place else ""


def _table_at(table: MeteredTable, slot: int) -> MeteredTable | None:
    place = _offset(table, slot)
    return MeteredTable(table.Bytes, table.Indirect(place)) if place else None


def _vector_at(table: MeteredTable, slot: int) -> tuple[int, int]:
    """The start and the length of a vector."""
    place = _offset(table, slot)
    if not place:
        return 0, 0
    length = int(table.VectorLen(place - table.Pos))
    if length > _MOST_ENTRIES:
        raise ValueError(f"{length} entries")
    # Tables can share vectors, whose entries then count each time.
    budget.spend(lookups=length)
    return int(table.Vector(place - table.Pos)), length


def _tables_at(table: MeteredTable, slot: int) -> list[MeteredTable]:
    start, length = _vector_at(table, slot)
    return [MeteredTable(table.Bytes, table.Indirect(start + 4 * k)) for k in range(length)]


def _floats_at(table: MeteredTable, slot: int) -> tuple[float, ...]:
    start, length = _vector_at(table, slot)
    return tuple(float(value) for value in np.frombuffer(table.Bytes, "<f4", length, start))
