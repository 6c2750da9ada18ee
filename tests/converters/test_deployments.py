"""A network in every form, side by side."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sample_networks
import tensorflow as tf
from click.testing import CliRunner

from kbnn import datasets, models
from kbnn.cli import main
from kbnn.converters import Deployments, deployments, inspect
from kbnn.errors import KbnnError

SAMPLES = 48


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    return datasets.load("digits")


@pytest.fixture(scope="module")
def model() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(0)
    return models.build("tiny", width=0.5)


@pytest.fixture(scope="module")
def found(model: tf.keras.Model, data: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Deployments:
    return deployments(model, data, tmp_path_factory.mktemp("forms"), limit=SAMPLES)


@pytest.mark.slow
def test_every_form_is_evaluated_on_the_same_images(found: Deployments, model: tf.keras.Model, data: datasets.Dataset):
    names = ["Keras", "binary", "binary, int8 weights", "binary, int8", "twin, float32", "twin, int8"]
    assert [form.name for form in found.forms] == names
    predicted = model.predict(data.inputs(data.test, SAMPLES), verbose=0).argmax(-1)
    top1 = np.mean(predicted == data.test.labels[:SAMPLES])
    keras, binary, _, _, twin, _ = found.forms
    assert (keras.top1.top1, keras.agreement, keras.size_bytes) == (top1, 1.0, None)
    assert binary.top1.low <= top1 <= binary.top1.high
    # Both compute what Keras computes, but for roundings at signs.
    assert min(binary.agreement, twin.agreement) >= 0.95
    assert found.samples == SAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_score_decides_between_two_classes(activation: str | None, tmp_path: Path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (60, 8, 8, 3), np.uint8)
    image = tf.keras.Input((8, 8, 3))
    x = sample_networks.layers.Conv2D(32, 3, padding="same", name="stem")(image)
    x = sample_networks.layers.GlobalAveragePooling2D()(sample_networks.convolution(x, 32, "conv"))
    logit = tf.keras.Model(image, sample_networks.layers.Dense(1, name="logits")(x), name="pair")
    sample_networks.varied(sample_networks.randomized(logit))
    score = tf.keras.layers.Activation(activation)(logit.output) if activation else logit.output
    data = datasets.of((pixels, generator.integers(0, 2, 60)), classes=["cat", "dog"])
    inputs = data.inputs(data.test)
    logit.get_layer("logits").bias.assign_sub(np.median(logit(inputs).numpy(), axis=0))
    is_dog = logit(inputs).numpy()[:, 0] > 0
    keras, binary, *_ = deployments(tf.keras.Model(image, score, name="pair"), data, tmp_path).forms
    assert 0 < is_dog.mean() < 1
    assert keras.top1.top1 == np.mean(is_dog == data.test.labels)
    assert binary.agreement >= 0.9


@pytest.mark.slow
def test_the_files_are_the_forms(found: Deployments):
    _, binary, int8_weights, int8, twin, int8_twin = (form.path for form in found.forms)
    binaries = [len(inspect(path).binary_convolutions) for path in (binary, int8_weights, int8, twin, int8_twin)]
    assert binaries == [4, 4, 4, 0, 0]
    sizes = {form.name: form.size_bytes for form in found.forms}
    assert sizes["binary, int8 weights"] < sizes["binary"] < sizes["twin, float32"]
    assert [Path(form.path).stat().st_size for form in found.forms[1:]] == list(sizes.values())[1:]


@pytest.mark.slow
def test_latencies_that_can_be_trusted_are_in_the_table(found: Deployments):
    assert "latency" not in str(found)
    reports = [
        SimpleNamespace(file=SimpleNamespace(path=form.path), summary=SimpleNamespace(median_of_means_us=mean))
        for form, mean in zip(found.forms[1:3], (1234.0, None), strict=True)
    ]
    timed = found.with_latencies(reports)  # type: ignore[arg-type]
    assert [form.milliseconds for form in timed.forms] == [None, 1.234, None, None, None, None]
    assert "1.234 ms" in str(timed)
    assert "withheld" in str(timed)


@pytest.mark.slow
def test_a_form_that_is_refused_says_why(found: Deployments):
    refused = replace(found.forms[3], top1=None, path=None, size_bytes=None, agreement=None, refusal="no images")
    told = str(replace(found, forms=(*found.forms[:3], refused)))
    assert told.endswith("binary, int8: no images")


@pytest.mark.slow
def test_a_network_that_is_not_binary_is_refused(data: datasets.Dataset, tmp_path: Path):
    with pytest.raises(KbnnError, match="has no 1-bit layer"):
        deployments(models.build("tiny", "float"), data, tmp_path, limit=4)


@pytest.mark.slow
def test_the_command_compares_the_forms_of_a_model(model: tf.keras.Model, tmp_path: Path):
    path = tmp_path / "model.keras"
    model.save(path)
    done = CliRunner().invoke(main, ["evaluate", str(path), "--data", "digits", "--forms", "--json"])
    assert done.exit_code == 0, done.output
    forms = json.loads(done.stdout)["forms"]
    assert [form["name"] for form in forms][:2] == ["Keras", "binary"]
    refused = CliRunner().invoke(main, ["evaluate", str(path), "--data", "digits", "-o", str(tmp_path / "x")])
    assert (refused.exit_code, "--output keeps the files of --forms" in refused.stderr) == (2, True)
