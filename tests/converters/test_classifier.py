"""`kbnn.Classifier`, `kbnn predict` and `kbnn evaluate` on runs, Keras models and `.tflite` files."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from click.testing import CliRunner, Result

import kbnn
from kbnn import converters, datasets, examples, training
from kbnn.analysis import judgement
from kbnn.cli import main
from kbnn.converters.tflite import flatbuffer, lce, metadata
from kbnn.datasets import pictures
from kbnn.errors import KbnnError, UsageError
from kbnn.intervals import wilson

DIGITS = examples.get("tiny-bireal-digits").path


@pytest.fixture(scope="module")
def digits() -> datasets.Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, digits: datasets.Dataset) -> Path:
    """Ten test images of digits as picture files, named by their class."""
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(10):
        place = int(np.flatnonzero(digits.test.labels == k)[0])
        PIL.Image.fromarray(digits.test.images[place, ..., 0]).save(folder / f"{k}.png")
    return folder


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], input=stdin)


def test_a_file_contains_its_labels_size_and_normalization(digits: datasets.Dataset):
    classifier = kbnn.Classifier(DIGITS)
    assert classifier.labels == digits.classes
    assert classifier.input_shape == (8, 8, 1)
    np.testing.assert_allclose(classifier.normalization.mean, digits.normalization.mean, rtol=1e-6)
    np.testing.assert_allclose(classifier.normalization.std, digits.normalization.std, rtol=1e-6)


def test_labels_come_with_probabilities_best_first(digits: datasets.Dataset):
    classifier = kbnn.Classifier(DIGITS)
    image = digits.test.images[0, ..., 0]
    ranked = classifier(image)
    logits = classifier.outputs(digits.inputs(digits.test, 1))[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [each.label for each in ranked] == [str(k) for k in np.argsort(-expected)]
    np.testing.assert_allclose([each.probability for each in ranked], np.sort(expected)[::-1], rtol=1e-5)
    assert classifier(image, top=2) == ranked[:2]


def test_pictures_come_in_any_form(digits: datasets.Dataset, photos: Path):
    classifier = kbnn.Classifier(DIGITS)
    path = photos / "3.png"
    image = PIL.Image.open(path)
    forms = [path, str(path), path.read_bytes(), np.asarray(image), np.asarray(image.convert("RGB")), image]
    first, *others = classifier.classify(forms)
    assert all(other == first for other in others)
    content = path.read_bytes()
    assert classifier.classify([bytearray(content), memoryview(content)]) == [first, first]
    assert classifier.classify([]) == []


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "not a picture: received NoneType"),
        (PIL.Image.new("F", (8, 8)), "32-bit levels"),
        ("absent.jpg", "cannot read picture 'absent.jpg': No such file"),
        (np.zeros((0, 8, 3), np.uint8), r"received uint8 \(0, 8, 3\)"),
    ],
)
def test_what_is_not_a_picture(picture: object, message: str):
    with pytest.raises(KbnnError, match=message):
        kbnn.Classifier(DIGITS)(picture)  # type: ignore[arg-type]


def test_a_network_of_float_images(tmp_path: Path, digits: datasets.Dataset):
    images = digits.train.images[:200] / 255
    data = datasets.of((images, digits.train.labels[:200]))
    assert metadata.Description.of(data) == metadata.Description(dataset="data", labels=digits.classes)
    network = tf.keras.Sequential([tf.keras.Input((8, 8, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)])
    network.save(tmp_path / "float.keras")
    classifier = kbnn.Classifier(tmp_path / "float.keras", data=data)
    expected = network(images[:5].astype(np.float32)).numpy()
    np.testing.assert_allclose(classifier.outputs(images[:5].astype(np.float32)), expected, atol=1e-5)
    with pytest.raises(UsageError, match="was trained on float images"):
        classifier(digits.test.images[0, ..., 0])


def two_colours(mode: str) -> PIL.Image.Image:
    """Red above blue, stored turned, with the EXIF orientation that undoes it, in one of Pillow's modes."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :, 0] = pixels[4:, :, 2] = 255
    image = PIL.Image.fromarray(pixels).transpose(PIL.Image.Transpose.ROTATE_90).convert(mode)
    image.getexif()[0x0112] = 6
    return image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "PA", "CMYK", "HSV", "YCbCr"])
def test_pillow_images_of_every_mode_are_turned_upright(mode: str):
    classifier = kbnn.Classifier(DIGITS)
    found = classifier.input_of(two_colours(mode)) * classifier.normalization.std[0] + classifier.normalization.mean[0]
    # BT.601 luma of red and of blue.
    np.testing.assert_allclose(found[:4], 0.299 * 255, atol=3)
    np.testing.assert_allclose(found[4:], 0.114 * 255, atol=3)


def test_the_input_equals_that_of_the_test_split(digits: datasets.Dataset):
    classifier = kbnn.Classifier(DIGITS)
    np.testing.assert_allclose(
        classifier.input_of(digits.test.images[5, ..., 0]), digits.inputs(digits.test, 6)[5], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("pixels", "received"),
    [
        (np.zeros((8, 8), np.float32), "float32"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 \(0, 8, 3\)"),
        (io.BytesIO(b"GIF"), "BytesIO"),
    ],
    ids=["floats", "four channels", "no pixels", "a file object"],
)
def test_pixels_that_are_not_a_picture(pixels: object, received: str):
    with pytest.raises(UsageError, match=rf"received {received}"):
        kbnn.Classifier(DIGITS)(pixels)


@pytest.fixture(scope="module")
def model(digits: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real-valued network as a `.keras` file."""
    network = tf.keras.Sequential([tf.keras.Input((8, 8, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)])
    network.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(digits.inputs(digits.train), digits.train.labels, epochs=5, verbose=0)
    path = tmp_path_factory.mktemp("model") / "linear.keras"
    network.save(path)
    return path


@pytest.mark.slow
def test_a_run_whose_data_is_not_at_hand(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    data = datasets.of((images, np.arange(40) % 2), classes=["cat", "dög"])
    folder = training.train(training.Recipe.of("tiny", epochs=1), tmp_path / "a run", data=data, quiet=True).folder
    PIL.Image.fromarray(images[0]).save(tmp_path / "one.png")
    classifier = kbnn.Classifier(folder)
    assert classifier.labels == ("cat", "dög")
    np.testing.assert_allclose(classifier.input_of(tmp_path / "one.png"), data.normalization(images[0]), atol=1e-5)
    assert run("predict", folder, tmp_path / "one.png").exit_code == 0
    assert "was trained on data that was passed in Python: give --data" in run("evaluate", folder).stderr
    done = run("evaluate", folder, "--forms", "--data", "digits")
    assert (done.exit_code, "data set 'digits' does not have the classes" in done.stderr) == (2, True)
    done = run("analyze", folder, "--data", "digits")
    assert (done.exit_code, "the model does not fit data set 'digits': received input" in done.stderr) == (2, True)
    done = run("convert", folder, "-o", tmp_path / "a file.tflite")
    assert done.exit_code == 0, done.output
    file = kbnn.Classifier(tmp_path / "a file.tflite")
    assert file.labels == classifier.labels
    np.testing.assert_allclose(file.normalization.mean, data.normalization.mean, rtol=1e-6)
    assert "will not contain labels" not in done.stderr


@pytest.mark.parametrize("shape", [(None, None, 3), (8, 16, 3), (12,)])
def test_a_folder_of_images_needs_a_square_input(shape: tuple[int | None, ...], tmp_path: Path):
    inputs = tf.keras.Input(shape)
    tf.keras.Model(inputs, tf.keras.layers.Dense(2)(inputs)).save(tmp_path / "model.keras")
    done = run("evaluate", tmp_path / "model.keras", "--data", tmp_path)
    assert done.exit_code == 2
    assert "a folder of images fits networks with one square input" in done.stderr


@pytest.mark.slow
def test_a_keras_model_needs_its_data_set(model: Path, digits: datasets.Dataset, photos: Path):
    with pytest.raises(UsageError, match="does not say how its input is normalized: give the data set"):
        kbnn.Classifier(model)
    classifier = kbnn.Classifier(model, data=digits)
    logits = tf.keras.models.load_model(model)(digits.inputs(digits.test, 20))
    np.testing.assert_allclose(classifier.outputs(digits.inputs(digits.test, 20)), logits, rtol=1e-5, atol=1e-5)
    done = run("predict", model, photos / "0.png", "--data", "digits", "--json", "--top", 1)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["images"][0]["predictions"]) == 1


def test_labels_that_differ_from_those_of_the_data_set(digits: datasets.Dataset):
    renamed = dataclasses.replace(digits, classes=("zero", *digits.classes[1:]))
    with pytest.raises(UsageError, match=r"labels of '.*' are not those of data set 'digits': '0' and 'zero' differ"):
        kbnn.Classifier(DIGITS, data=renamed)


def test_networks_that_are_not_classifiers(tmp_path: Path):
    network = tf.keras.Sequential([tf.keras.Input((8, 8, 1)), tf.keras.layers.Conv2D(2, 3)])
    network.save(tmp_path / "map.keras")
    with pytest.raises(UsageError, match="is not a classifier: received output shape"):
        kbnn.Classifier(tmp_path / "map.keras")
    pair = tf.keras.Model(network.inputs, [tf.keras.layers.Flatten()(network.output)] * 2, name="pair")
    pair.save(tmp_path / "pair.keras")
    with pytest.raises(UsageError, match=r"model 'pair' has 1 input and 2 outputs, expected one of each: choose an"):
        kbnn.Classifier(tmp_path / "pair.keras")
    (tmp_path / "bad.tflite").write_bytes(b"no")
    with pytest.raises(KbnnError):
        kbnn.Classifier(tmp_path / "bad.tflite")


@pytest.fixture(scope="module")
def shades() -> datasets.Dataset:
    """Single pixels, whose levels are the network's input."""
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    data = datasets.of((images, np.arange(20) % 2), classes=["dark", "light"])
    return dataclasses.replace(data, normalization=datasets.Normalization((0.0,), (1.0,)))


def with_one_score(ending: str | None) -> tf.keras.Model:
    """A network with the logit v - 2 for a pixel of level v."""
    layers = tf.keras.layers
    network = tf.keras.Sequential([tf.keras.Input((1, 1, 1)), layers.Flatten(), layers.Dense(1)])
    network.set_weights([np.array([[1.0]]), np.array([-2.0])])
    if ending is None:
        return network
    return tf.keras.Model(network.inputs, layers.Reshape((1,))(layers.Activation(ending)(network.output)))


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


@pytest.mark.parametrize(
    ("ending", "light"), [("sigmoid", sigmoid(1)), (None, sigmoid(1)), ("hard_sigmoid", 0.2 * 1 + 0.5)]
)
def test_one_score_decides_between_two_classes(
    ending: str | None, light: float, tmp_path: Path, shades: datasets.Dataset
):
    model = with_one_score(ending)
    model.save(tmp_path / "score.keras")
    converters.export_float(model, tmp_path / "score.tflite", metadata.Description.of(shades))
    of_file = kbnn.Classifier(tmp_path / "score.tflite")
    for classifier in (kbnn.Classifier(tmp_path / "score.keras", data=shades), of_file):
        assert classifier.labels == ("dark", "light")
        ranked = classifier(np.full((1, 1), 3, np.uint8))
        assert [each.label for each in ranked] == ["light", "dark"]
        np.testing.assert_allclose([each.probability for each in ranked], [light, 1 - light], atol=1e-6)
        # As in Keras's `binary_accuracy`, 0.5 is the first class.
        assert [each.label for each in classifier(np.full((1, 1), 2, np.uint8))] == ["dark", "light"]
        assert classifier(np.full((1, 1), 1, np.uint8))[0].label == "dark"


def test_one_rounded_score(tmp_path: Path, shades: datasets.Dataset):
    path = tmp_path / "score.tflite"
    images = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1)
    converters.export_int8(with_one_score("sigmoid"), path, images, metadata.Description.of(shades))
    assert kbnn.Classifier(path)(np.full((1, 1), 3, np.uint8))[0].probability == pytest.approx(sigmoid(1), abs=0.01)


def test_one_score_has_two_labels(tmp_path: Path, shades: datasets.Dataset):
    with_one_score("sigmoid").save(tmp_path / "score.keras")
    three = dataclasses.replace(shades, classes=("a", "b", "c"))
    with pytest.raises(UsageError, match=r"received 3 labels \(a, b, c\) for 1 output, give two labels for its two"):
        kbnn.Classifier(tmp_path / "score.keras", data=three)


@pytest.mark.slow
def test_predict_and_evaluate_with_one_score(tmp_path: Path):
    for name, level in (("dark", 40), ("light", 210)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(10):
            pixels = np.full((8, 8), level + k, np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    layers = tf.keras.layers
    network = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(1, "sigmoid")])
    network.set_weights([np.full((192, 1), 1 / 192), np.zeros(1)])
    network.save(tmp_path / "score.keras")
    data = ("--data", tmp_path / "photos", "--json")
    done = run("predict", tmp_path / "score.keras", tmp_path / "photos" / "light" / "0.png", *data)
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["images"]
    assert [each["label"] for each in found["predictions"]] == ["light", "dark"]
    done = run("evaluate", tmp_path / "score.keras", *data)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["top1"] == 1.0


def test_logits_that_look_like_probabilities_are_logits(tmp_path: Path):
    # A black pixel gives logits of 0.3 and 0.7, whose sum is 1.
    network = tf.keras.Sequential([tf.keras.Input((1, 1, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)])
    network.set_weights([np.array([[1.0, 2.0]]), np.array([0.3, 0.7])])
    images = np.array([[0, 0], [1, 0], [2, 1], [3, 1]] * 5).reshape(-1, 2, 1, 1)[:, :1].astype(np.uint8)
    data = dataclasses.replace(
        datasets.of((images, np.arange(20) % 2)), normalization=datasets.Normalization((0.0,), (1.0,))
    )
    network.save(tmp_path / "logits.keras")
    found = kbnn.Classifier(tmp_path / "logits.keras", data=data)(np.zeros((1, 1), np.uint8))
    assert found[0].label == "1"
    assert found[0].probability == pytest.approx(1 / (1 + np.exp(-0.4)), abs=1e-5)
    shares = tf.keras.Model(network.inputs, tf.keras.layers.Softmax()(network.outputs[0]))
    shares.save(tmp_path / "shares.keras")
    again = kbnn.Classifier(tmp_path / "shares.keras", data=data)(np.zeros((1, 1), np.uint8))
    assert again[0].probability == pytest.approx(found[0].probability, abs=1e-5)


def test_a_linear_layer_returns_logits_even_if_all_of_them_sum_to_one(tmp_path: Path, shades: datasets.Dataset):
    network = tf.keras.Sequential([tf.keras.Input((1, 1, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)])
    network.set_weights([np.zeros((1, 2)), np.array([0.3, 0.7])])
    converters.export_float(network, tmp_path / "constant.tflite", metadata.Description.of(shades))
    for classifier in (kbnn.Classifier(network, data=shades), kbnn.Classifier(tmp_path / "constant.tflite")):
        found = classifier.probabilities(np.zeros((1, 1, 1, 1), np.float32))
        np.testing.assert_allclose(found[0, 1], 1 / (1 + np.exp(-0.4)), rtol=1e-5)


def test_outputs_rounded_to_a_step_are_probabilities(tmp_path: Path, digits: datasets.Dataset):
    # Ten outputs of a tenth are 26/256 each, whose sum is 260/256.
    inputs = tf.keras.Input((8, 8, 1))
    network = tf.keras.Model(inputs, tf.keras.layers.Dense(10, "softmax")(tf.keras.layers.Flatten()(inputs)))
    network.set_weights([np.full((64, 10), 0.01), np.zeros(10)])
    path, images = tmp_path / "tenths.tflite", digits.inputs(digits.test)[:20]
    converters.export_int8(network, path, images, metadata.Description.of(digits))
    np.testing.assert_allclose(kbnn.Classifier(path).probabilities(images[:1]), np.full((1, 10), 26 / 256), rtol=1e-6)


def test_predict_prints_a_table(photos: Path):
    done = run("predict", DIGITS, photos, "--top", 1)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines() if ".png" in line]
    assert [Path(line[0]).stem for line in lines] == [str(k) for k in range(10)]
    assert sum(Path(line[0]).stem == line[1] for line in lines) >= 9


def test_predict_tells_what_it_leaves_out(photos: Path, tmp_path: Path):
    for name in ("seven.jfif", "seven.PNM", ".seven.png", "seven.heic"):
        (tmp_path / name).write_bytes((photos / "7.png").read_bytes())
    (tmp_path / "up").symlink_to(tmp_path.parent)
    done = run("predict", DIGITS, tmp_path, "--json")
    assert [Path(each["image"]).name for each in json.loads(done.stdout)["images"]] == ["seven.PNM", "seven.jfif"]
    assert f"left out in '{tmp_path}': 1 hidden, 1 links to a folder that was already read, 1 without" in done.stderr


def test_predict_reads_standard_input(photos: Path):
    done = run("predict", DIGITS, "-", "--json", stdin=(photos / "7.png").read_bytes())
    (found,) = json.loads(done.stdout)["images"]
    assert found["image"] == "-"
    assert found["predictions"][0]["label"] == "7"
    shares = [each["probability"] for each in found["predictions"]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 3


def test_predict_names_what_it_cannot_read(photos: Path, tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = run("predict", DIGITS, tmp_path / "bad.png", photos / "1.png")
    assert done.exit_code == 1
    assert "1.png" in done.stdout
    assert "1 of 2 images cannot be classified" in done.stderr
    assert run("predict", DIGITS, tmp_path / "absent.png").exit_code == 2
    (tmp_path / "empty").mkdir()
    assert "no images in" in run("predict", DIGITS, tmp_path / "empty").stderr


@pytest.mark.slow
def test_evaluate_a_file(tmp_path: Path, digits: datasets.Dataset):
    done = run("evaluate", DIGITS, "--data", "digits", "--json", "--html", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["samples"] == 360
    assert found["top1"] >= 0.95
    assert found["top1_low"] < found["top1"] < found["top1_high"]
    assert found["top5"] >= found["top1"]
    assert np.trace(found["confusion"]) == round(found["top1"] * 360)
    assert len(found["mistakes"]) == 360 - np.trace(found["confusion"])
    assert [each["images"] for each in found["classes"]] == np.bincount(digits.test.labels).tolist()
    page = (tmp_path / "page.html").read_text()
    assert "Worst mistakes" in page


def test_evaluate_a_keras_model(model: Path):
    done = run("evaluate", model, "--data", "digits")
    assert done.exit_code == 0, done.output
    assert "top-1" in done.stdout


def test_figures_by_hand():
    shares = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])
    found = judgement.judge("m", shares, np.array([0, 1, 1, 2]), ("a", "b", "c"), "d")
    assert (found.samples, found.top1, found.top5) == (4, 0.5, None)
    assert "top-5" not in str(found)
    six = judgement.judge("m", np.tile(np.arange(6.0), (4, 1)) / 15, np.array([0, 1, 5, 5]), tuple("abcdef"), "d")
    assert six.top5 == 0.75
    assert "top-1 50.00% (15.0% to 85.0%), top-5 75.00% of 4 images" in str(six)
    assert found.confusion == ((1, 0, 0), (1, 1, 0), (1, 0, 0))
    assert [(each.recall, each.precision) for each in found.classes] == [(1.0, 1 / 3), (0.5, 1.0), (0.0, None)]
    assert [(each.image, each.actual, each.predicted) for each in found.mistakes] == [(1, "b", "a"), (3, "c", "a")]
    np.testing.assert_allclose(found.loss, -np.log([0.9, 0.3, 0.7, 0.25]).mean())


def test_top5_by_hand():
    # Of six classes, the first in each row has the smallest share; of equal shares, the first ones count.
    shares = np.array([[0.05, 0.15, 0.2, 0.2, 0.2, 0.2], [1 / 6] * 6, [1 / 6] * 6, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    found = judgement.judge("m", shares, np.array([0, 4, 5, 5]), tuple("abcdef"), "d")
    assert (found.top1, found.top5) == (0.0, 0.25)
    assert "top-5 25.00%" in str(found)


def test_the_interval_of_a_share():
    # Wilson's interval of 8 in 10, from the textbooks: 0.490 to 0.943.
    np.testing.assert_allclose(wilson(8, 10), (0.490, 0.943), atol=5e-4)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


def test_metadata_round_trips_through_a_file():
    file = flatbuffer.read(DIGITS)
    described = metadata.Description("net", "recipe", "data", tuple("abcdefghij"), (1.5,), (2.5,))
    again = metadata.describe(flatbuffer.parse(metadata.with_metadata(file, described)))
    assert (again.model, again.labels, again.mean, again.std) == ("net", tuple("abcdefghij"), (1.5,), (2.5,))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_metadata_is_one_error(seed: int):
    file = flatbuffer.read(DIGITS)
    generator = np.random.default_rng(seed)
    entry, errors = file.metadata[metadata.ENTRY], 0
    for _ in range(200):
        damaged = bytearray(entry[: generator.integers(1, len(entry) + 1)])
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] = generator.integers(0, 256)
        changed = dataclasses.replace(file, metadata={metadata.ENTRY: bytes(damaged)})
        # Any other exception is a traceback, and fails.
        try:
            described = metadata.describe(changed)
        except KbnnError:
            errors += 1
        else:
            assert described is None or isinstance(described, metadata.Description)
    assert errors > 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [(("a\nb", *"cdefghijk"), "has a line break"), (tuple("abc"), r"received 3 labels .* for 10 outputs")],
)
def test_labels_that_do_not_fit_are_refused(labels: tuple[str, ...], message: str):
    with pytest.raises(UsageError, match=message):
        metadata.with_metadata(flatbuffer.read(DIGITS), metadata.Description(labels=labels))


def changed(path: Path, what: str, **fields: object) -> Path:
    """A copy of the digits' file in which the input's or output's tensor has other fields."""
    data = DIGITS.read_bytes()
    model = flatbuffer.tree(data)
    graph = model.subgraphs[0]
    tensor = graph.tensors[getattr(graph, what)[0]]
    scale, zero_point = fields.pop("quantization", (None, None))
    if scale is not None:
        tensor.quantization = lce.schema().QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = scale, zero_point
    vars(tensor).update(fields)
    path.write_bytes(flatbuffer.pack(model) + data[data.index(b"PK\x03\x04") :])
    return path


@pytest.mark.parametrize(
    ("what", "fields", "message"),
    [
        ("inputs", {"type": 9, "quantization": ([0.1], None)}, "of type int8 with scales"),
        ("inputs", {"type": 9, "quantization": ([0.0], [0])}, "of type int8 with scales"),
        ("inputs", {"type": 9, "quantization": ([0.1, 0.2], [0, 0])}, "of type int8 with scales"),
        ("outputs", {"type": 9, "quantization": ([0.1], None)}, "of type int8 with scales"),
        ("inputs", {"type": 5}, "of type string"),
        ("inputs", {"shape": [1, 0, 0, 3]}, "takes images of 0x0x3"),
        ("inputs", {"shape": [1, 40_000, 40_000, 1]}, "takes images of 40000x40000x1, the limit is 100,000,000"),
    ],
)
def test_inputs_and_outputs_that_do_not_fit(what: str, fields: dict[str, object], message: str, tmp_path: Path):
    with pytest.raises(UsageError, match=message):
        kbnn.Classifier(changed(tmp_path / "changed.tflite", what, **fields))


@pytest.mark.parametrize(
    "changes", [{"std": (-1.0,)}, {"std": ()}, {"std": (1.0, 1.0)}, {"mean": (float("nan"),)}, {"std": (float("inf"),)}]
)
def test_a_normalization_that_is_not_one(changes: dict[str, tuple[float, ...]], tmp_path: Path):
    file = flatbuffer.read(DIGITS)
    described = dataclasses.replace(metadata.describe(file), **changes)
    (tmp_path / "changed.tflite").write_bytes(metadata.with_metadata(file, described))
    with pytest.raises(UsageError, match=r"the normalization of '.*' is damaged"):
        kbnn.Classifier(tmp_path / "changed.tflite")


def test_an_output_that_is_listed_twice(tmp_path: Path):
    data = DIGITS.read_bytes()
    model = flatbuffer.tree(data)
    model.subgraphs[0].outputs = [*model.subgraphs[0].outputs, *model.subgraphs[0].outputs]
    (tmp_path / "twice.tflite").write_bytes(flatbuffer.pack(model) + data[data.index(b"PK\x03\x04") :])
    picture = np.zeros((8, 8), np.uint8)
    assert kbnn.Classifier(tmp_path / "twice.tflite")(picture) == kbnn.Classifier(DIGITS)(picture)


def test_tab_completion_shows_public_names():
    assert set(dir(kbnn)) == {*kbnn.__all__, "__version__"}
    assert set(dir(converters)) == set(converters.__all__)
    assert not [
        name for module in (kbnn, converters) for name in dir(module) if name[0] == "_" and name != "__version__"
    ]
    assert all(getattr(kbnn, name) is not None for name in kbnn.__all__)
    assert all(getattr(converters, name) is not None for name in converters.__all__)


def test_bytes_of_a_picture_are_decoded_upright():
    image = PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    image.getexif()[0x0112] = 3
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=image.getexif())
    classifier = kbnn.Classifier(DIGITS)
    turned = np.asarray(image)[::-1, ::-1]
    for picture in (buffer.getvalue(), PIL.Image.open(buffer)):
        np.testing.assert_array_equal(classifier.input_of(picture), classifier.input_of(turned))


def test_labels_in_files_of_other_tools_have_any_name(tmp_path: Path):
    """Field numbers of metadata_schema.fbs: the output's associated file has the type TENSOR_AXIS_LABELS, 2."""
    file = flatbuffer.read(DIGITS)
    entry = file.metadata[metadata.ENTRY]
    changed = dataclasses.replace(file, metadata={metadata.ENTRY: entry.replace(b"labels.txt", b"zahlen.txt")})
    assert metadata.labels(changed) == []
    names = [f"number {k}" for k in range(10)]
    data = metadata._with_archive(file.data[: file.data.index(b"PK\x03\x04")], {"zahlen.txt": "\n".join(names)})
    assert metadata.labels(dataclasses.replace(changed, data=data)) == names


def test_a_picture_does_not_have_four_channels(tmp_path: Path):
    path = tmp_path / "four.keras"
    network = tf.keras.Sequential([tf.keras.Input((8, 8, 4)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)])
    network.save(path)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 4), np.uint8)
    classifier = kbnn.Classifier(path, data=datasets.of((images, np.arange(8) % 2)))
    assert classifier.probabilities(np.zeros((3, 8, 8, 4), np.float32)).shape == (3, 2)
    with pytest.raises(UsageError, match="takes 4 channels, but a picture has 1"):
        classifier(images[0, ..., :3])


def test_outputs_that_are_not_numbers_are_an_error(model: Path, digits: datasets.Dataset, tmp_path: Path):
    network = tf.keras.models.load_model(model)
    kernel, bias = network.layers[-1].get_weights()
    classifier = kbnn.Classifier(model, data=digits)
    inputs = digits.inputs(digits.test, 3)
    for wrong in (np.nan, np.inf):
        network.layers[-1].set_weights([kernel, np.where(np.arange(10) == 3, wrong, bias)])
        network.save(tmp_path / "wrong.keras")
        with pytest.raises(KbnnError, match="returns values that are not numbers for 3 of 3 inputs"):
            kbnn.Classifier(tmp_path / "wrong.keras", data=digits).outputs(inputs)
    # A class that is never predicted may have the logit -inf.
    network.layers[-1].set_weights([kernel, np.where(np.arange(10) == 3, -np.inf, bias)])
    network.save(tmp_path / "wrong.keras")
    masked = kbnn.Classifier(tmp_path / "wrong.keras", data=digits).probabilities(inputs)
    expected = classifier.probabilities(inputs)
    expected[:, 3] = 0
    np.testing.assert_allclose(masked, expected / expected.sum(-1, keepdims=True), atol=1e-6)


def test_a_stream_is_read_up_to_the_limit():
    limits = pictures.Limits(bytes=10)
    assert pictures.read_from(io.BytesIO(b"0123456789"), limits) == b"0123456789"
    with pytest.raises(KbnnError, match="more than 10 bytes"):
        pictures.read_from(io.BytesIO(b"01234567890"), limits)


def test_a_file_that_does_not_tell_its_normalization_asks_for_data(photos: Path, tmp_path: Path):
    path = tmp_path / "plain.tflite"
    path.write_bytes(
        flatbuffer.pack(flatbuffer.tree(DIGITS.read_bytes())).replace(b"TFLITE_METADATA", b"OTHER__METADATA")
    )
    done = run("predict", path, photos / "1.png")
    assert done.exit_code == 2
    assert "does not say how its input is normalized: give the data set that it was trained on (here: --data)" in (
        done.stderr
    )
