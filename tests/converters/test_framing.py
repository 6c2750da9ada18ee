"""The same photograph becomes the same input for a run, for its files, in evaluation and in calibration."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import photographs
import PIL.Image
import pytest
import tensorflow as tf

import kbnn
from kbnn import datasets, examples
from kbnn.cli import artifacts
from kbnn.cli.convert import _calibration
from kbnn.converters.android import InputSpec, input_of, prepare
from kbnn.converters.classifier import of_run
from kbnn.converters.tflite import flatbuffer, metadata
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.verify.rebuilding import description_of
from kbnn.datasets import Dataset, Normalization, Transform
from kbnn.errors import KbnnError
from kbnn.training import Recipe, Run

DIGITS = examples.get("tiny-bireal-digits").path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs of 18 x 27 and 27 x 18 pixels in two classes."""
    return photographs.write(tmp_path_factory.mktemp("photos"), ("cat", "dog"), 10, [(27, 18), (18, 27)])


def run_on(data: Dataset, folder: Path, recipe: Recipe) -> Run:
    """A run on a data set, with a network that is not trained."""
    run = Run.new(folder, recipe)
    run.start(data)
    layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(len(data.classes))]
    run.save(tf.keras.Sequential([tf.keras.Input(data.input_shape), *layers]))
    return run


@pytest.fixture(scope="module", params=[False, True], ids=["shorter side", "square"])
def run(request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    transform = Transform(resize=18, square=request.param, size=16, flip=True)
    data = datasets.load_folder(photos, transform=transform)
    data = dataclasses.replace(data, normalization=Normalization((10.0, 20.0, 30.0), (40.0, 50.0, 60.0)))
    recipe = Recipe.of("tiny", folder=photos, size=16).changed({"data.resize": 18, "data.square": request.param})
    return run_on(data, tmp_path_factory.mktemp("runs") / "run", recipe)


def file_of(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the description of a run. Its network is another one, so its shape is patched."""
    shape = run.model().input_shape[1:]
    monkeypatch.setattr("kbnn.converters.classifier._image_shape", lambda *_: shape)
    digits = flatbuffer.read(DIGITS)
    described = dataclasses.replace(of_run(run), labels=tuple(map(str, range(10))))
    path.write_bytes(metadata.with_metadata(digits, described))
    return path


def test_a_run_and_its_file_take_a_photograph_alike(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from_run = kbnn.Classifier(run.folder)
    from_file = kbnn.Classifier(file_of(run, tmp_path / "model.tflite", monkeypatch))
    data = artifacts.load_dataset(run.folder, str(photos), None)
    inputs = data.inputs(data.train)
    for path in sorted(photos.rglob("*.png"))[:4]:
        found = from_run.input_of(path)
        np.testing.assert_array_equal(from_file.input_of(path), found)
        # The photographs are not shrunk when the folder is loaded, so evaluation and calibration see the same pixels.
        np.testing.assert_array_equal(prepare(np.asarray(PIL.Image.open(path)), input_of(data)), found)
    matches = [np.abs(inputs - from_run.input_of(path)).max((1, 2, 3)).min() for path in photos.rglob("*.png")]
    assert sum(match < 1e-5 for match in matches) == len(inputs)


@pytest.mark.parametrize("square", [False, True], ids=["shorter side", "square"])
def test_large_photographs_are_evaluated_as_they_are_classified(square: bool, tmp_path: Path):
    """They are shrunk when the folder is loaded, without loss; also if JPEG files are decoded at a fraction of size."""
    endings = ("png", "png", "png", "jpg", "jpg")
    photographs.write(tmp_path / "photos", ("cat", "dog"), 5, [(131, 90), (90, 131)], endings, seed=1)
    transform = Transform(resize=18, square=square, size=16)
    data = datasets.load_folder(tmp_path / "photos", transform=transform, validation=0)
    classify = kbnn.Classifier(run_on(data, tmp_path / "run", Recipe.of("tiny", folder=tmp_path / "photos")).folder)
    found = [classify.input_of(path) for path in sorted((tmp_path / "photos").rglob("*.*"))]
    evaluated = [*data.inputs(data.train), *data.inputs(data.test)]
    assert len(evaluated) == len(found) == 10
    for image in evaluated:
        assert min(np.abs(image - one).max() for one in found) < 1e-5


def test_pictures_in_memory_are_shrunk_like_files(run: Run, tmp_path: Path):
    pixels = np.random.default_rng(2).integers(0, 256, (50, 70, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "one.png")
    classify = kbnn.Classifier(run.folder)
    expected = classify.input_of(tmp_path / "one.png")
    for picture in (pixels, PIL.Image.fromarray(pixels), (tmp_path / "one.png").read_bytes()):
        np.testing.assert_array_equal(classify.input_of(picture), expected)


def test_the_centre_by_hand():
    pixels = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
    # 4 of the shorter side's 6 pixels are the middle 4 x 4; if squeezed, 4/6 of the rows and 6/6 of the columns.
    np.testing.assert_array_equal(prepare(pixels, InputSpec(4, 4, 3, 6, (0.0,), (1.0,))), pixels[1:5, 2:6])
    squeezed = prepare(pixels, InputSpec(4, 6, 3, 6, (0.0,), (1.0,), square=True))
    np.testing.assert_allclose(squeezed, tf.image.resize(pixels[1:5], (4, 6), antialias=True), atol=1e-4)


def test_images_that_are_cropped_as_they_are_stored():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    data = datasets.of((images, np.arange(20) % 2), transform=Transform(size=6))
    assert data.framing == Transform(resize=8, size=6)
    expected = data.inputs(data.test, 1)[0]
    np.testing.assert_array_equal(prepare(data.test.images[0], input_of(data)), expected)


def test_calibration_images_are_those_of_training(run: Run, photos: Path):
    trained = run.recipe.data
    expected = datasets.load_folder(photos, transform=Transform(resize=18, square=trained.square, size=16))
    expected = dataclasses.replace(expected, normalization=Normalization((10.0, 20.0, 30.0), (40.0, 50.0, 60.0)))
    found = _calibration(run.folder, str(photos), None, None)
    np.testing.assert_array_equal(found, expected.inputs(expected.train))


def test_calibration_of_a_run_on_data_that_was_passed_in_python(photos: Path, tmp_path: Path):
    """The folder is normalized as the data was, not as folders usually are, and not cropped."""
    images = np.random.default_rng(0).integers(0, 99, (40, 18, 18, 3), np.uint8)
    data = datasets.of((images, np.arange(40) % 2), classes=["cat", "dog"])
    run = run_on(data, tmp_path / "run", Recipe.of("tiny"))
    found = _calibration(run.folder, str(photos), None, None)
    pixels = found * data.normalization.std + data.normalization.mean
    stored = [np.asarray(PIL.Image.open(path)) for path in photos.rglob("*.png")]
    middles = [image[4:22] if image.shape[0] == 27 else image[:, 4:22] for image in stored]
    for image in pixels:
        assert min(np.abs(image - middle).max() for middle in middles) < 1e-3


def test_a_file_without_a_run_is_evaluated_as_it_was_trained(photos: Path, tmp_path: Path):
    described = dataclasses.replace(metadata.describe(flatbuffer.read(DIGITS)), resize=10, square=True)
    (tmp_path / "model.tflite").write_bytes(metadata.with_metadata(flatbuffer.read(DIGITS), described))
    data = artifacts.load_dataset(tmp_path / "model.tflite", str(photos), None)
    assert data.transform == Transform(resize=10, square=True, size=8)
    assert data.normalization.mean == pytest.approx(described.mean)


def with_framing(content: bytes) -> File:
    model = flatbuffer.tree(DIGITS.read_bytes())
    flatbuffer.add_metadata(model, metadata.FRAMING, content)
    return flatbuffer.parse(flatbuffer.pack(model))


def test_files_record_how_pictures_are_resized():
    file = with_framing(json.dumps({"resize": 9, "square": True}).encode())
    described = metadata.describe(file)
    assert (described.resize, described.square) == (9, True)
    assert description_of(file) == dataclasses.replace(description_of(flatbuffer.read(DIGITS)), resize=9, square=True)
    assert (metadata.describe(flatbuffer.read(DIGITS)).resize, metadata.framing(flatbuffer.read(DIGITS))[1]) == (
        None,
        False,
    )


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"resize": 7, "square": false}',
        b'{"resize": 9.0, "square": false}',
        b'{"resize": 9, "square": 1}',
    ],
)
def test_a_damaged_record_is_one_error(content: bytes):
    with pytest.raises(KbnnError, match=r"metadata is damaged \(KBNN_FRAMING: .*: convert the model again"):
        metadata.describe(with_framing(content))
