"""A run whose classes changed after training is not converted with the wrong labels."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kbnn import examples, training
from kbnn.cli import main
from kbnn.training import Recipe


@pytest.mark.slow
def test_a_class_that_was_renamed_is_refused_by_name(tmp_path: Path):
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
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
