"""`kbnn analyze`, in this process."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result

from kbnn import models, training
from kbnn.cli import main
from kbnn.cli.artifacts import load_dataset


def analyze(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["analyze", *map(str, arguments)])


@pytest.mark.slow
def test_runs_and_models_are_compared_on_one_self_contained_page(tmp_path: Path):
    run, other, real = tmp_path / "one", tmp_path / "other.keras", tmp_path / "real.keras"
    training.train(training.Recipe.of("tiny", "bireal", "digits", epochs=1), run)
    models.build("tiny", method="xnor").save(other)
    models.build("tiny", method="float").save(real)
    done = analyze("--compare", run, other, real, "--samples", 16, "--json")
    assert done.exit_code == 0, done.output

    study = json.loads(done.stdout)
    assert list(study["reports"]) == ["one", "other"]
    assert np.isfinite(study["reports"]["other"]["quantization_error"])
    assert {Path(path).name for path in study["pictures"]} == {
        *("shares.png", "entropy.png", "quantization-error.png", "optimal-code.png", "weights.png"),
        *("curves.png", "flips.png", "weights-over-epochs-one.png"),
    }
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in study["pictures"])

    page = (tmp_path / "comparison" / "analysis.html").read_text()
    assert "Analysis of one, other, real" in page
    assert page.count("<figure") == len(study["pictures"])
    assert "prefers-color-scheme: dark" in page
    assert not any(reference in page for reference in ('src="http', "src='http", "url(", "<link", "<script"))
    assert "16 held-out images" in page
    top1 = training.result(training.Run.open(run)).top1
    assert f"one: top-1 {top1:.2%} on the test set, " in page
    assert "one: seed 0, 1 epoch on digits, 10% of the training images held out" in page


@pytest.mark.slow
def test_a_model_without_a_binary_layer_is_refused(tmp_path: Path):
    models.build("tiny", method="float").save(tmp_path / "real.keras")
    done = analyze(tmp_path / "real.keras", "--data", "digits")
    assert done.exit_code == 2
    assert "has no binary layer" in done.output


def test_a_missing_model_is_reported_as_missing():
    done = analyze("runs/missing")
    assert done.exit_code == 2
    assert "no model at 'runs/missing': give the folder of a run" in done.output


def test_several_models_are_compared_only_when_asked_to():
    done = analyze("runs/a", "runs/b")
    assert done.exit_code == 2
    assert "several with --compare: received 2" in done.output


@pytest.mark.slow
def test_a_model_is_shown_images_of_a_folder_in_its_own_size(tmp_path: Path):
    for name in ("black", "white"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(10):
            pixels = np.full((9, 9, 3), 255 * (name == "white"), np.uint8)
            (tmp_path / "images" / name / f"{k}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    models.build("tiny", method="xnor", input_shape=(8, 8, 3)).save(tmp_path / "m.keras")
    data = load_dataset(tmp_path / "m.keras", str(tmp_path / "images"), None)
    assert (data.input_shape, data.classes, data.test.size) == ((8, 8, 3), ("black", "white"), 4)


def test_a_model_file_must_name_its_data(tmp_path: Path):
    models.build("tiny", method="bireal").save(tmp_path / "m.keras")
    done = analyze(tmp_path / "m.keras")
    assert done.exit_code == 2
    assert "give it with --data" in done.output
