"""The pretrained files in the package: hashes, accuracy on the sample images, size."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kbnn import converters, examples
from kbnn.converters.tflite import interpreter
from kbnn.errors import KbnnError, UsageError


@pytest.mark.parametrize("name", examples.names())
def test_accuracy_on_the_sample_images_is_that_on_the_test_set(name: str):
    example = examples.get(name)
    samples = examples.samples(example.dataset)
    classes = interpreter.run(example.path.read_bytes(), [samples.inputs])[0].argmax(-1)
    right, count = (classes == samples.labels).sum(), len(samples.labels)
    # Four standard deviations of a sample of this size.
    assert right >= count * example.test_top1 - 4 * np.sqrt(count * example.test_top1 * (1 - example.test_top1))


@pytest.mark.parametrize("name", examples.names())
def test_every_convolution_that_should_be_bitpacked_is(name: str):
    audit = converters.inspect(examples.get(name).path)
    assert audit.binary_convolutions
    assert not audit.silent_fallbacks


def test_all_files_together_are_under_2_mb():
    assert sum(path.stat().st_size for path in Path(examples.__file__).parent.glob("*.*")) < 2_000_000


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    example = examples.get("tiny-bireal-digits")
    copy = shutil.copytree(example.path.parent, tmp_path / "examples")
    data = bytearray(example.path.read_bytes())
    data[len(data) // 2] ^= 1
    (copy / example.path.name).write_bytes(data)
    monkeypatch.setattr(examples, "_folder", lambda: copy)
    with pytest.raises(KbnnError, match="is damaged"):
        examples.get("tiny-bireal-digits")


def test_similar_names_are_suggested():
    with pytest.raises(UsageError, match="did you mean tiny-bireal-digits"):
        examples.get("tiny-bireal-digit")
