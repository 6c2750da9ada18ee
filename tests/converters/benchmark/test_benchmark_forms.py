"""Every form of a network, measured side by side."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from benchmark_tools import replay

import kbnn
from kbnn.cli.command import to_json
from kbnn.converters import baseline
from kbnn.converters.benchmark import benchmark, forms
from kbnn.converters.benchmark.forms import MeasuredForm, compare_forms
from kbnn.converters.benchmark.report import BenchmarkOptions
from kbnn.converters.conversion import convert
from kbnn.converters.forms import FORMS, forms_on_devices
from kbnn.errors import KbnnError

FEW = BenchmarkOptions(threads=1, warmup=1, runs=2, repeats=2, kernel="indirect")


@pytest.fixture(scope="module")
def grouped() -> tf.keras.Model:
    layers = tf.keras.layers
    inputs = layers.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(64, 3, padding="same")(inputs))
    x = kbnn.layers.BinaryConv2D(64, 3, groups=2, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x))
    return tf.keras.Model(inputs, layers.Dense(4)(x))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((8, 8, 8, 3)).astype(np.float32)


def test_forms_of_a_network_with_and_without_groups():
    plain, with_groups = ([form.name for form in forms_on_devices(grouped)] for grouped in (False, True))
    assert plain[:3] == ["float", "int8 weights", "int8"]
    assert with_groups[:3] == ["grouped float", "grouped int8 weights", "grouped int8"]
    assert with_groups[3:6] == ["portable float", "portable int8 weights", "portable int8"]
    assert plain[3:6] == ["int8 throughout", "for pi4", "for pi4, int8 weights"]


def test_the_command_of_a_form_has_the_options_for_its_arguments():
    assert {form.name: form.options for form in forms_on_devices(True)} == {
        "grouped float": "",
        "grouped int8 weights": "--weights int8",
        "grouped int8": "--int8",
        "portable float": "--kernel portable",
        "portable int8 weights": "--kernel portable --weights int8",
        "portable int8": "--kernel portable --int8",
        "int8 throughout": "--int8 --device microcontroller",
        "for pi4": "--device pi4",
        "for pi4, int8 weights": "--device pi4 --weights int8",
        "for pi5": "--device pi5",
        "for pi5, int8 weights": "--device pi5 --weights int8",
        "for android": "--device android",
        "for android, int8 weights": "--device android --weights int8",
    }
    assert {form.file_name: form.command for form in FORMS} == {
        "binary": "kbnn convert",
        "binary-int8-weights": "kbnn convert --weights int8",
        "binary-int8": "kbnn convert --int8 --device microcontroller",
        "twin-float32": "export_float",
        "twin-int8": "export_int8",
    }


@pytest.mark.slow
def test_all_forms_are_measured_and_one_is_recommended(grouped: tf.keras.Model, images: np.ndarray):
    lines: list[str] = []
    found = compare_forms(grouped, images, images, "local", "python", FEW, progress=lines.append)
    measured = [form for form in found.forms if form.report]
    assert {"grouped float", "portable float", "grouped int8 weights"} <= {form.name for form in measured}
    assert all(form.kernel == "indirect" for form in measured)
    twins = [form for form in measured if form.agreement is None]
    assert [form.name for form in twins] == ["float32, not binary", "int8, not binary"]
    assert all(0 <= form.agreement <= 1 for form in measured if form not in twins)
    assert next(form for form in measured if form.name == "portable float").agreement == 1
    assert found.recommended is None or found.recommended.partition(" (")[0] in {
        form.name for form in measured if form not in twins
    }
    assert "recommended: " in str(found) or "no form: " in str(found)
    assert json.loads(json.dumps(to_json(found)))["forms"][0]["command"] == ""


@pytest.mark.slow
def test_forms_that_a_kernel_does_not_run_are_rows_that_say_so(
    grouped: tf.keras.Model, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """Twins that TensorFlow Lite cannot convert are such rows, too."""

    def refuse(*_: object, **__: object) -> None:
        raise KbnnError("no such twin")

    both = [form for form in forms_on_devices(True) if form.name in ("grouped float", "portable float")]
    monkeypatch.setattr(forms, "forms_on_devices", lambda _: both)
    monkeypatch.setattr(baseline, "export_float", refuse)
    found = compare_forms(grouped, images, None, "local", "python", FEW, kernel="default")
    measured = [(form.name, form.kernel) for form in found.forms if form.report]
    refused = {form.name: form.refusal for form in found.forms if not form.report}
    assert measured == [("portable float", "default")]
    assert list(refused) == ["float32, not binary", "grouped float"]
    assert "does not support grouped" in refused["grouped float"]
    monkeypatch.setattr(forms, "forms_on_devices", lambda _: both[:1])
    with pytest.raises(KbnnError, match="no form runs on the default kernel"):
        compare_forms(grouped, images, None, "local", "python", FEW, kernel="default")


@pytest.mark.parametrize("ending", [None, "sigmoid", "hard_sigmoid"])
def test_one_score_agrees_where_both_networks_choose_the_same_class(ending: str | None, tmp_path: Path):
    """The network has the logits v - 2 for pixels v, the file v - 2.5 and so another class for one image of four."""

    def network(bias: float) -> tf.keras.Model:
        layers = tf.keras.layers
        model = tf.keras.Sequential([tf.keras.Input((1, 1, 1)), layers.Flatten(), layers.Dense(1, ending)])
        model.set_weights([np.ones((1, 1)), np.array([bias])])
        return model

    levels = np.array([0, 1, 2.25, 3], np.float32).reshape(4, 1, 1, 1)
    baseline.export_float(network(-2.5), tmp_path / "other.tflite")
    assert forms._Trained.of(network(-2.0), levels).agreement(tmp_path / "other.tflite") == 0.75


def test_real_valued_groups_have_one_form():
    inputs = tf.keras.layers.Input((8, 8, 32))
    x = tf.keras.layers.Conv2D(32, 3, groups=2)(inputs)
    x = kbnn.layers.BinaryConv2D(32, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    assert not forms._is_grouped(tf.keras.Model(inputs, x))


@pytest.mark.slow
def test_a_grouped_file_on_the_default_kernel_names_the_other_form(grouped: tf.keras.Model, tmp_path: Path):
    convert(grouped, tmp_path / "grouped.tflite")
    with pytest.raises(KbnnError, match="portable form") as caught:
        benchmark(tmp_path / "grouped.tflite", kernel="default", runs=1, repeats=1)
    assert not re.search(r"\.(cc|h):\d", str(caught.value))


def report(mean: float, tmp_path: Path, model: Path):
    found = benchmark(model, tool=replay(tmp_path, "out-arm.default"))
    return dataclasses.replace(found, summary=dataclasses.replace(found.summary, median_of_means_us=mean))


@pytest.mark.parametrize(
    ("means", "sizes", "agreements", "best"),
    [
        ((100, 90, 80), (30, 20, 10), (1, 1, 1), "c"),
        ((100, 90, 80), (30, 20, 10), (1, 1, 0.9), "b"),
        ((100, 81, 80), (30, 5, 10), (1, 1, 1), "b"),
        ((100, 90, 80), (30, 20, 10), (0.9, 0.9, 0.9), None),
    ],
    ids=["the fastest", "the fastest that agrees", "the smaller of equals", "none agrees"],
)
def test_the_recommendation_by_hand(
    means: tuple[float, ...],
    sizes: tuple[int, ...],
    agreements: tuple[float, ...],
    best: str | None,
    tmp_path: Path,
    model: Path,
):
    measured = report(1.0, tmp_path, model)
    candidates = [
        MeasuredForm(
            name,
            "",
            "default",
            size,
            agreement,
            dataclasses.replace(measured, summary=dataclasses.replace(measured.summary, median_of_means_us=mean)),
        )
        for name, mean, size, agreement in zip("abc", means, sizes, agreements, strict=True)
    ]
    recommended, reason = forms._recommended(candidates)
    assert recommended == (best and f"{best} (default kernel)")
    assert reason
