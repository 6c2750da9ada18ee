"""A run is not converted with other labels or another normalization than those of its training."""

import dataclasses
from pathlib import Path

import numpy as np
import photographs
import pytest
from click.testing import CliRunner

from kbnn import datasets, examples, training
from kbnn.cli import convert, export_c, main
from kbnn.converters.tflite import flatbuffer, metadata
from kbnn.datasets import Normalization
from kbnn.training import Recipe


@pytest.mark.slow
def test_a_class_that_was_renamed_is_refused_by_name(tmp_path: Path):
    photographs.write(tmp_path / "photos", ("cat", "dog"), 12, [(8, 8)])
    settings = {
        "name": "photos",
        "data": {"folder": str(tmp_path / "photos"), "size": 8, "resize": 8},
        "model": {"name": "tiny", "method": "bireal"},
        "stage": [{"epochs": 1}],
    }
    training.train(Recipe.parse(settings), tmp_path / "run", quiet=True)
    (tmp_path / "photos" / "dog").rename(tmp_path / "photos" / "wolf")
    run, photos, output = (str(tmp_path / name) for name in ("run", "photos", "x.tflite"))
    for arguments in (
        ["convert", run, "-o", output],
        ["convert", run, "-o", output, "--dataset", photos],
        ["export-android", run, "-o", output, "--dataset", photos],
        ["export-c", run, "-o", output, "--calibrate", photos],
        ["evaluate", run, "--forms", "--dataset", photos],
        ["verify", run, str(examples.get(examples.names()[0]).path), "--dataset", photos],
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2, done.output
        assert "class 'dog' is missing and class 'wolf' is new" in done.output
        assert not (tmp_path / "x.tflite").exists()


@pytest.mark.slow
def test_calibration_images_are_normalized_as_in_training(tmp_path: Path):
    digits, own = datasets.load("digits"), Normalization((3.0,), (7.0,))
    pixels = digits.train.images[:256].astype(np.float32)
    # A model that records nothing about its data.
    (tmp_path / "model.keras").touch()
    images = convert._calibration(
        tmp_path / "model.keras", "digits", dataclasses.replace(digits, normalization=own), None
    )
    np.testing.assert_allclose(images, (pixels - 3) / 7, rtol=1e-6)
    file = flatbuffer.read(examples.get("tiny-bireal-digits").path)
    changed = dataclasses.replace(metadata.describe(file), mean=own.mean, std=own.std)
    (tmp_path / "digits.tflite").write_bytes(metadata.with_metadata(file, changed))
    _, images, _ = export_c._load(tmp_path / "digits.tflite", "digits", None)
    np.testing.assert_allclose(images, (pixels - 3) / 7, rtol=1e-6)
