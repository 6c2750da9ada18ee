"""The metadata that apps and TensorFlow Lite's tools read."""

import io
import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

import kbnn
from kbnn.converters import Description, convert, verify
from kbnn.converters.tflite import flatbuffer, metadata
from kbnn.converters.tflite.flatbuffer import File
from kbnn.errors import UsageError

LABELS = ("cat", "dögs", "fish", "bird", "horse", "ship", "truck", "frog", "deer", "car")
DESCRIPTION = Description("bireal", "my-recipe", "pets", LABELS, (125.0, 120.5, 110.0), (60.0, 61.0, 62.0))


@pytest.fixture(scope="module")
def path(bireal: tf.keras.Model, tmp_path_factory: pytest.TempPathFactory):
    found = tmp_path_factory.mktemp("described") / "model.tflite"
    convert(bireal, found, description=DESCRIPTION)
    return found


class Table:
    """Reads a FlatBuffers table by the rules of the format, without a schema."""

    def __init__(self, data: bytes, position: int):
        self.data, self.position = data, position
        self.fields = position - struct.unpack_from("<i", data, position)[0]

    def _field(self, slot: int):
        size = struct.unpack_from("<H", self.data, self.fields)[0]
        offset = struct.unpack_from("<H", self.data, self.fields + 4 + 2 * slot)[0] if 4 + 2 * slot < size else 0
        return self.position + offset if offset else None

    def _follow(self, slot: int):
        place = self._field(slot)
        return place + struct.unpack_from("<I", self.data, place)[0]

    def byte(self, slot: int):
        return self.data[self._field(slot)]

    def number(self, slot: int):
        return struct.unpack_from("<I", self.data, self._field(slot))[0]

    def text(self, slot: int):
        place = self._follow(slot)
        return self.data[place + 4 : place + 4 + struct.unpack_from("<I", self.data, place)[0]].decode()

    def table(self, slot: int):
        return Table(self.data, self._follow(slot))

    def tables(self, slot: int):
        place = self._follow(slot)
        places = [place + 4 + 4 * k for k in range(struct.unpack_from("<I", self.data, place)[0])]
        return [Table(self.data, k + struct.unpack_from("<I", self.data, k)[0]) for k in places]

    def floats(self, slot: int):
        place = self._follow(slot)
        return list(struct.unpack_from(f"<{struct.unpack_from('<I', self.data, place)[0]}f", self.data, place + 4))


def test_the_entry_follows_the_schema(path: Path):
    """Field numbers of metadata_schema.fbs: the tables ModelMetadata, SubGraphMetadata, TensorMetadata and below."""
    data = flatbuffer.read(path).metadata["TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    root = Table(data, struct.unpack_from("<I", data)[0])
    assert root.text(0) == "bireal"
    assert root.text(1) == "binary network, recipe my-recipe, trained on pets"
    assert root.text(2) == f"kbnn {kbnn.__version__}"
    (graph,) = root.tables(3)
    (image,) = graph.tables(2)
    assert image.text(0) == "image"
    content = image.table(3)
    assert content.byte(0) == 2
    properties = content.table(1)
    assert properties.byte(0) == 1
    assert (properties.table(1).number(0), properties.table(1).number(1)) == (12, 12)
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1
    assert unit.table(1).floats(0) == [125.0, 120.5, 110.0]
    assert unit.table(1).floats(1) == [60.0, 61.0, 62.0]
    assert image.table(5).floats(1) == pytest.approx([-125 / 60, -120.5 / 61, -110 / 62])
    (logits,) = graph.tables(3)
    assert logits.text(0) == "logits"
    (associated,) = logits.tables(6)
    assert associated.text(0) == "labels.txt"
    assert associated.byte(2) == 2


def test_labels_are_appended_to_the_file(path: Path):
    assert metadata.labels(flatbuffer.read(path)) == list(LABELS)


@pytest.mark.parametrize("labels", [("a", "b"), (*LABELS[:9], "line\nbreak"), (*LABELS[:9], "sep\u2028arator")])
def test_labels_that_do_not_fit_are_refused(bireal_file: File, labels: tuple[str, ...]):
    with pytest.raises(UsageError):
        metadata.with_metadata(bireal_file, replace(DESCRIPTION, labels=labels))


@pytest.mark.parametrize("text", ["a\nb\n", "a\r\nb", "a\rb"])
def test_labels_of_other_tools_files(bireal_file: File, text: str):
    data = metadata._with_archive(bireal_file.data, {"labels.txt": text})
    assert metadata.labels(flatbuffer.parse(data)) == ["a", "b"]


def test_an_archive_bomb_is_not_read(bireal_file: File):
    buffer = io.BytesIO(bireal_file.data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", b"\n" * 2**25)
    assert len(buffer.getvalue()) < len(bireal_file.data) + 2**17
    assert metadata.labels(flatbuffer.parse(buffer.getvalue())) == []


def test_the_file_records_how_it_was_made(path: Path):
    made_by = json.loads(flatbuffer.read(path).metadata["KBNN"])
    assert made_by["version"] == kbnn.__version__
    assert made_by["recipe"] == "my-recipe"
    assert made_by["kernel"] == "grouped"


def test_a_described_file_is_verified_like_any_other(bireal: tf.keras.Model, path: Path):
    assert verify(bireal, path, sample_networks.images(bireal)).passed


def test_the_same_model_gives_the_same_bytes(bireal: tf.keras.Model, path: Path, tmp_path: Path):
    convert(bireal, tmp_path / "again.tflite", description=DESCRIPTION)
    assert (tmp_path / "again.tflite").read_bytes() == path.read_bytes()


def test_without_a_description_there_are_no_labels(bireal_file: File):
    assert metadata.labels(bireal_file) == []
    assert json.loads(bireal_file.metadata["KBNN"])["model"] == "bireal"


def test_the_description_of_a_data_set():
    data = kbnn.datasets.load("digits")
    found = Description.of(data, "recipe", "tiny")
    assert found.labels == tuple(data.classes)
    assert found.mean == data.normalization.mean
    assert np.shape(found.std) == (1,)
