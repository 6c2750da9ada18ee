"""The assets of the Android app, and the pictures on which the app's pre-processing is tested."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kbnn
from kbnn import datasets
from kbnn.converters import android, inspect
from kbnn.converters.tflite import flatbuffer, interpreter, metadata
from kbnn.datasets import Dataset
from kbnn.errors import UsageError

APP = Path(__file__).parents[2] / "android_demo"


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def assets(digits: Dataset, tmp_path_factory: pytest.TempPathFactory):
    model = kbnn.models.build("tiny", "bireal", digits.input_shape, len(digits.classes))
    return export(model, digits, tmp_path_factory.mktemp("app") / "assets")


def export(model: tf.keras.Model, data: Dataset, folder: Path):
    return android.export_android(model, data, folder, "digits", "my-recipe")


@pytest.mark.slow
def test_the_index_names_files_that_are_there(assets: android.Assets):
    folder = Path(assets.folder)
    index = json.loads((folder / "models.json").read_text())
    assert index.keys() == {"format", "shorter_side", "square", "models"}
    assert index["shorter_side"] == 8
    assert [model["name"] for model in index["models"]] == ["digits", "digits_float32", "digits_int8"]
    assert index["format"] == 4
    for model in index["models"]:
        assert model["returns_probabilities"] is False
        assert (folder / model["file"]).stat().st_size == model["size_bytes"]
        assert model["binary_share"] == inspect(folder / model["file"]).binary_share
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["models.json", *(model["file"] for model in index["models"])]
    )


@pytest.mark.slow
def test_the_index_says_that_a_network_ends_with_softmax(digits: Dataset, tmp_path: Path):
    layers = tf.keras.layers
    inputs = layers.Input(digits.input_shape)
    x = layers.BatchNormalization()(layers.Conv2D(32, 3)(inputs))
    x = kbnn.layers.BinaryConv2D(32, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    export(tf.keras.Model(inputs, layers.Dense(10, "softmax")(x)), digits, tmp_path)
    models = json.loads((tmp_path / "models.json").read_text())["models"]
    assert [model["returns_probabilities"] for model in models] == [True, True, True]
    # What the app shows, the outputs as they are, is what `kbnn predict` shows.
    images = digits.inputs(digits.test)[:4]
    for model in models:
        classifier = kbnn.Classifier(tmp_path / model["file"])
        np.testing.assert_array_equal(classifier.probabilities(images), classifier.outputs(images))


@pytest.mark.slow
def test_only_the_first_file_is_binary(assets: android.Assets):
    assert [model.binary_share > 0.9 for model in assets.models] == [True, False, False]
    assert assets.models[0].size_bytes < assets.models[2].size_bytes < assets.models[1].size_bytes


@pytest.mark.slow
def test_every_file_describes_its_own_input(assets: android.Assets, digits: Dataset):
    for model in assets.models:
        file = flatbuffer.read(Path(assets.folder) / model.file)
        assert metadata.labels(file) == list(digits.classes)
        assert b"recipe my-recipe, trained on digits" in file.metadata["TFLITE_METADATA"]


@pytest.mark.slow
def test_grouped_convolutions_run_on_the_default_kernel_of_the_released_library(digits: Dataset, tmp_path: Path):
    layers = tf.keras.layers
    inputs = layers.Input(digits.input_shape)
    x = layers.BatchNormalization()(layers.Conv2D(64, 3, padding="same")(inputs))
    x = kbnn.layers.BinaryConv2D(64, 3, groups=2, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    assets = export(tf.keras.Model(inputs, layers.Dense(10)(x)), digits, tmp_path)
    content = (tmp_path / assets.models[0].file).read_bytes()
    assert interpreter.run(content, [digits.inputs(digits.test)[:2]], kernel="default")[0].shape == (2, 10)


def test_one_score_for_two_classes_is_refused(digits: Dataset, tmp_path: Path):
    inputs = tf.keras.Input(digits.input_shape)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(1, "sigmoid")(tf.keras.layers.Flatten()(inputs)), name="one")
    with pytest.raises(UsageError, match=r"the app needs a score for each of the 10 classes: .*'one' returns 1"):
        export(model, digits, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_data_set_is_refused(digits: Dataset, tmp_path: Path):
    model = kbnn.models.build("tiny", "bireal", (16, 16, 3), 10)
    with pytest.raises(UsageError, match="do not fit"):
        android.export_android(model, digits, tmp_path / "assets", "digits")
    assert not (tmp_path / "assets").exists()


def test_pictures_are_prepared_as_training_prepares_them(digits: Dataset):
    images = digits.test.images[:20]
    prepared = [android.prepare(np.repeat(image, 3, axis=-1), android.input_of(digits)) for image in images]
    np.testing.assert_array_equal(prepared, digits.inputs(digits.test)[:20])


def vectors():
    spec = importlib.util.spec_from_file_location("make_vectors", APP / "make_vectors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_apps_test_vectors_come_from_this_pipeline():
    made = vectors()
    cases = made.cases()
    assert {path.stem for path in made.VECTORS.iterdir()} == set(cases)
    for name, (_, spec) in cases.items():
        pixels = np.asarray(Image.open(made.VECTORS / f"{name}.png"))
        kept = np.fromfile(made.VECTORS / f"{name}.bin", "<f4").reshape(spec.height, spec.width, spec.channels)
        np.testing.assert_allclose(android.prepare(pixels, spec), kept, atol=1e-5, err_msg=name)
        kept_spec = json.loads((made.VECTORS / f"{name}.json").read_text())
        assert (
            android.InputSpec(**{key: tuple(v) if isinstance(v, list) else v for key, v in kept_spec.items()}) == spec
        )


def test_digits_among_the_vectors_come_from_the_data_set(digits: Dataset):
    made = vectors()
    for k in range(3):
        kept = np.fromfile(made.VECTORS / f"digit{k}.bin", "<f4").reshape(8, 8, 1)
        np.testing.assert_array_equal(kept, digits.inputs(digits.test)[k])


def test_the_apps_files_with_metadata_come_from_this_converter():
    made = vectors()
    cases = made.described()
    assert {path.stem for path in made.FILES.iterdir()} == set(cases)
    for name, (_, described) in cases.items():
        file = flatbuffer.read(made.FILES / f"{name}.tflite")
        assert metadata.labels(file) == list(described.labels)
        assert file.metadata["TFLITE_METADATA"] == metadata._entry(file, described.of_model("tiny"))
