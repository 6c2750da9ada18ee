"""The data of a run: named by the recipe or given in Python, and unchanged when the run is resumed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn import datasets
from kbnn.datasets import Arrays, Dataset
from kbnn.errors import UsageError
from kbnn.training import DataSettings, Recipe, Run, TrainingPlan, result, train

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load("digits")


def pair(data: Dataset, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    return data.train.images[:size], data.train.labels[:size].astype(np.int64)


def test_arrays_are_split_and_normalized(digits: Dataset):
    images, labels = pair(digits)
    data = datasets.of((images, labels), classes=list("0123456789"), validation=0.25)
    assert (data.train.size, data.validation.size, data.test.size) == (240, 80, 80)
    assert data.normalization.mean == (round(float(images.mean()), 2),)
    again = datasets.of({"train": (images, labels), "test": (images[:50], labels[:50])}, validation=0.0)
    assert (again.train.size, again.validation.size, again.test.size) == (400, 0, 50)
    assert again.classes == tuple("0123456789")


def test_floats_are_not_normalized(digits: Dataset):
    images, labels = pair(digits)
    scaled = (images / 255).astype(np.float64)
    data = datasets.of((scaled, labels))
    batch, _ = next(iter(data.epochs(16, seed=0)))
    assert batch.dtype == tf.float32
    assert {*np.unique(batch)} <= {*np.unique(scaled.astype(np.float32))}


@pytest.mark.parametrize("batch", [None, 64])
def test_a_tf_data_set_is_the_same_as_its_arrays(digits: Dataset, batch: int | None):
    images, labels = pair(digits)
    stream = tf.data.Dataset.from_tensor_slices((images, labels))
    data = datasets.of(stream if batch is None else stream.batch(batch))
    assert data.fingerprint() == datasets.of((images, labels)).fingerprint()


def test_images_of_different_sizes_in_a_tf_data_set():
    stream = tf.data.Dataset.from_generator(
        lambda: ((np.zeros((4 + k % 2, 4, 3), np.uint8), k % 2) for k in range(8)),
        output_signature=(tf.TensorSpec((None, 4, 3), tf.uint8), tf.TensorSpec((), tf.int64)),
    )
    with pytest.raises(UsageError, match="images of 'train' differ in size"):
        datasets.of(stream)


def test_training_and_test_data_as_keras_returns_them(digits: Dataset):
    images, labels = pair(digits)
    train, test = (images[:300], labels[:300, np.newaxis]), (images[300:], labels[300:, np.newaxis])
    expected = datasets.of({"train": train, "test": test})
    assert expected.test.size == 100
    streams = [tf.data.Dataset.from_tensor_slices(part) for part in (train, test)]
    for data in ((train, test), [list(train), list(test)], streams, tuple(streams)):
        found = datasets.of(data)
        assert found.fingerprint() == expected.fingerprint()
        np.testing.assert_array_equal(found.test.images, images[300:])


def test_two_images_are_not_training_and_test_data():
    images = [np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)]
    data = datasets.of({"train": (images, [0, 1]), "test": (images, [0, 1])}, validation=0.0)
    assert (data.train.size, data.test.size) == (2, 2)
    with pytest.raises(UsageError, match="only one image"):
        datasets.of((images, [0, 1]))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
def test_integers_are_pixels(digits: Dataset, dtype: type):
    images, labels = pair(digits)
    data = datasets.of((images.astype(dtype), labels))
    assert data.takes_pixels
    assert data.fingerprint() == datasets.of((images, labels)).fingerprint()
    assert data.normalization.mean != (0.0,)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 8, 8, 1)), "give a pair"),
        ((np.zeros((4, 8, 8, 1)), np.zeros(3, int)), r"received shapes \(4, 8, 8, 1\) and \(3,\)"),
        ((np.zeros((4, 8, 8, 1)), np.zeros(4)), "labels of type float64"),
        ((np.full((4, 8, 8, 1), np.nan), np.zeros(4, int)), "contain NaN or infinity"),
        ((np.zeros((4, 8, 8, 1)), np.array([0, 1, -1, 0])), "labels of 'train' must count from 0: received -1"),
        (
            {"test": (np.zeros((4, 8, 8, 1)), np.zeros(4, int))},
            "data needs the split 'train', and may have 'validation' and 'test'",
        ),
        (tf.data.Dataset.range(3).repeat(), "endless"),
        (tf.data.Dataset.from_tensor_slices((np.zeros((4, 8, 8, 1)), np.zeros(4, int))).take(0), "is an empty tf.data"),
        (([np.zeros((8, 8)), np.zeros((8, 9))] * 2, np.zeros(4, int)), "images of 'train' differ in size: resize them"),
        ((np.full((4, 8, 8, 1), 256), np.zeros(4, int)), "images of 'train' are int64 from 256 to 256"),
        (
            (np.full((4, 8, 8, 1), -1), np.zeros(4, int)),
            "are int64 from -1 to -1: give pixel values 0 to 255, or floats",
        ),
    ],
)
def test_invalid_data(data: object, message: str):
    with pytest.raises(UsageError, match=message):
        datasets.of(data)


@pytest.mark.slow
def test_a_recipe_trains_on_arrays_and_resumes_only_on_the_same(digits: Dataset, tmp_path: Path):
    images, labels = pair(digits, 900)
    recipe = Recipe.of("tiny", "bireal", epochs=1)
    assert recipe.name == "tiny-bireal"
    run = train(recipe, tmp_path / "run", data=(images, labels), quiet=True)
    # 648 training images: the largest power of two that gives at least eight steps.
    assert json.loads((run.folder / "dataset.json").read_text())["classes"] == [str(k) for k in range(10)]
    assert result(run).samples == 180
    assert result(run).top5 > result(run).top1
    with pytest.raises(UsageError, match="the recipe names no data"):
        run.dataset()
    (run.folder / "result.json").unlink()
    with pytest.raises(UsageError, match="the images have changed, although their number has not"):
        train(recipe, run.folder, data=(255 - images, labels), resume=True, quiet=True)
    train(recipe, run.folder, data=(images, labels), resume=True, quiet=True)


def with_classes(data: Dataset, *classes: str) -> Dataset:
    return dataclasses.replace(data, classes=(*classes, *data.classes[len(classes) :]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: with_classes(data, "zero"), "class '0' is missing and class 'zero' is new"),
        (lambda data: with_classes(data, "1", "0"), "its classes are in another order: 1, 0, 2, 3, 4"),
        (
            lambda data: dataclasses.replace(data, train=Arrays(data.train.images[1:], data.train.labels[1:])),
            r"class '\d' has \d+ images instead of \d+",
        ),
    ],
)
def test_a_difference_is_named(digits: Dataset, finished: Run, change: Callable[[Dataset], Dataset], message: str):
    finished.check_data(digits)
    with pytest.raises(UsageError, match=f"is not the one that run '.*' was trained on: {message}"):
        finished.check_data(change(digits))


@pytest.mark.slow
def test_a_run_of_version_0_1_accepts_the_images_given(finished: Run, digits: Dataset, tmp_path: Path):
    run = Run(tmp_path / "run", finished.recipe)
    finished.recipe.write(run.folder / "config.toml")
    run.check_data(digits)
    run.start(digits)
    assert run.fingerprint() == digits.fingerprint()


@pytest.mark.parametrize(("images", "batch"), [(50_000, 128), (1024, 128), (1023, 64), (72, 8), (9, 1), (1, 1)])
def test_the_batch_suits_the_number_of_images(images: int, batch: int):
    assert DataSettings().batch_for(images) == batch
    assert DataSettings(batch=96).batch_for(images) == 96


def test_a_plan_describes_the_training(recipe: Recipe, digits: Dataset, network: Callable[..., tf.keras.Model]):
    from kbnn import methods

    built = network("", methods.get("bireal"), input_shape=(8, 8, 1), classes=10)
    printed = str(TrainingPlan.of(recipe, digits, built, 256))
    assert "3 epochs of 5 steps, batch 256" in printed
    assert "1,293 images to train on, 144 to validate, 360 to test" in printed
    assert "10: 0, 1, 2, 3, 4, 5, 6, 7, …" in printed
    assert "an epoch, estimated" in printed
