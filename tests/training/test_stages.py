"""Runs of several stages: transferred weights, batch normalization retraining, schedules, teachers, patience."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sample_runs import AtStep, PowerCutError, assert_equal, send

from kbnn import datasets
from kbnn.errors import KbnnError, UsageError
from kbnn.methods import Method
from kbnn.training import InterruptedRunError, Recipe, Run, train
from kbnn.training.checkpoints import Position, TrainingState
from kbnn.training.session import _teacher

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(scope="module")
def three_stages(recipe: Recipe) -> Recipe:
    """Bi-Real Net's stages, with a penalty: real-valued, binary, batch normalization with ±1 kernels."""
    tables = recipe.changed({"model.method": "bireal+ml"}).tables()
    real = {"epochs": 1, "method": "float", "schedule": "constant"}
    retrained = {"epochs": 1, "train": "batch_norm", "learning_rate": 1e-3}
    return Recipe.parse({**tables, "stage": [real, {"epochs": 2, "penalty_warmup": 2}, retrained]})


class Kernels(tf.keras.callbacks.Callback):
    """Records the kernels before and after each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def on_train_begin(self, logs: object = None) -> None:
        self.seen.append(self.model.get_layer("conv").get_weights()[0])

    def on_train_end(self, logs: object = None) -> None:
        self.seen.append(self.model.get_layer("conv").get_weights()[0])


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels()


@pytest.fixture(scope="module")
def whole(
    three_stages: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
    network: Callable[..., tf.keras.Model],
    kernels: Kernels,
) -> Run:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kbnn.training.networks.build", network)
        return train(three_stages, tmp_path_factory.mktemp("runs") / "stages", callbacks=[kernels])


@pytest.mark.slow
def test_epochs_are_counted_across_stages(whole: Run):
    history = whole.history()
    assert [(row["stage"], row["epoch"]) for row in history] == [(1, 1), (2, 2), (2, 3), (3, 4)]
    assert "flip_ratio" not in history[0]
    assert history[3]["flip_ratio"] == 0
    assert history[1]["learning_rate"] == pytest.approx(5e-3 * 0.5)


@pytest.mark.slow
def test_each_stage_starts_from_the_one_before(whole: Run, kernels: Kernels):
    before, after_real, begin_binary, after_binary, signs, end = kernels.seen
    assert (before != after_real).any()
    np.testing.assert_array_equal(after_real, begin_binary)
    assert (begin_binary != after_binary).any()
    np.testing.assert_array_equal(signs, np.where(after_binary >= 0, 1, -1))
    np.testing.assert_array_equal(signs, end)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 16])
def test_a_run_resumes_in_any_stage(three_stages: Recipe, whole: Run, tmp_path: Path, step: int):
    """Interrupted at the end of the first stage, and in the third."""
    stage_step = {5: 5, 16: 1}[step]

    class InStage(AtStep):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if int(self.model.metrics[0].count) and self.stage_of(step) == self.stage:
                super().on_train_batch_end(batch, logs)

        stage = 0

        def on_train_begin(self, logs: object = None) -> None:
            self.stage += 1

        def stage_of(self, total: int) -> int:
            return 1 if total <= 5 else 2 if total <= 15 else 3

    output = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        train(three_stages, output, callbacks=[InStage(stage_step, send(signal.SIGTERM))])
    assert_equal(train(three_stages, output, resume=True), whole)


class BinaryKernels(tf.keras.callbacks.Callback):
    """Records the kernel at the beginning of each stage and after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[np.ndarray] = []
        self.ended: list[np.ndarray] = []

    def on_train_begin(self, logs: object = None) -> None:
        self.begun.append(self.model.get_layer("conv").get_weights()[0])

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.ended.append(self.model.get_layer("conv").get_weights()[0])


@pytest.mark.slow
def test_a_stage_starts_from_the_best_epoch_of_the_one_before(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also if the power fails after the first epoch has replaced the best model, and before its checkpoint."""
    # Of each stage, the first epoch counts as the best.
    monkeypatch.setattr(
        "kbnn.training.keeper.best_epoch",
        lambda history, stage: min(int(row["epoch"]) for row in history if row["stage"] == stage + 1),
    )
    stages = [{"epochs": 2, "method": "float", "schedule": "constant"}, {"epochs": 2, "start": "best"}]
    staged = Recipe.parse({**recipe.tables(), "stage": stages})
    kernels = BinaryKernels()
    whole = train(staged, tmp_path / "whole", callbacks=[kernels])
    np.testing.assert_array_equal(kernels.begun[1], kernels.ended[0])
    assert (kernels.begun[1] != kernels.ended[1]).any()

    save = TrainingState.save

    def fail(state: TrainingState, position: Position) -> None:
        if (position.stage, position.epoch) == (1, 1):
            raise PowerCutError
        save(state, position)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingState, "save", fail)
        with pytest.raises(PowerCutError):
            train(staged, tmp_path / "cut")
    assert_equal(train(staged, tmp_path / "cut", resume=True), whole)
    with pytest.raises(UsageError, match=r"stage.2.start='best' needs validation images: received data.validation=0 "):
        train(staged.changed({"data.validation": 0.0}), tmp_path / "none")


@pytest.mark.slow
def test_ede_is_scheduled_by_default(recipe: Recipe, tmp_path: Path):
    seen = []

    class Look(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            seen.append(float(self.model.get_layer("conv").input_quantizer.t))

    train(
        recipe.changed({"model.method": "irnet", "stage.1.quantizers": {"ede": [1.0, 8.0]}}),
        tmp_path / "run",
        callbacks=[Look()],
    )
    np.testing.assert_allclose(seen, [1.0, 2.0, 4.0], rtol=1e-6)


@pytest.mark.slow
def test_a_penalty_warms_up_to_its_full_strength(recipe: Recipe, tmp_path: Path):
    warm = recipe.changed({"model.method": "xnor+ml+bma", "model.penalty": 0.3, "stage.1.penalty_warmup": 3})
    whole = train(warm, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(warm, tmp_path / "parts", callbacks=[AtStep(6, send(signal.SIGTERM))])
    assert_equal(train(warm, tmp_path / "parts", resume=True), whole)
    assert whole.history()[-1]["penalty"] > 0


@pytest.mark.slow
def test_training_stops_when_patience_runs_out(recipe: Recipe, tmp_path: Path):
    run = train(recipe.changed({"stage.1.epochs": 40, "stage.1.patience": 2}), tmp_path / "run")
    accuracies = [row["val_accuracy"] for row in run.history()]
    improvements = [accuracy > max([0, *accuracies[:k]]) for k, accuracy in enumerate(accuracies)]
    assert 3 <= len(accuracies) < 40
    assert improvements[-2:] == [False, False]
    assert all(any(improvements[k : k + 2]) for k in range(len(improvements) - 2))
    (run.folder / "result.json").unlink()
    assert train(run.recipe, run.folder, resume=True).history() == run.history()


class Untouched(tf.keras.callbacks.Callback):
    """Fails if training begins."""

    def on_train_begin(self, logs: object = None) -> None:
        raise AssertionError("training began")


def refused(recipe: Recipe, second: dict[str, object], output: Path) -> str:
    """The error for a recipe with a wrong second stage, which must be raised before the first one is trained."""
    wrong = Recipe.parse({**recipe.tables(), "stage": [{"epochs": 1, "method": "float"}, {"epochs": 1, **second}]})
    with pytest.raises(KbnnError) as caught:
        train(wrong, output, callbacks=[Untouched()])
    assert not output.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            {"method": "irnet", "quantizers": {"ede": [1.0, -1.0]}},
            "stage 2: EDESign: Tmin and Tmax must be positive and finite, received 1.0 and -1.0",
        ),
        (
            {"method": "irnet", "quantizers": {"ede": [1e-3, float("inf")]}},
            "stage 2: EDESign: Tmin and Tmax must be positive and finite, received 0.001 and inf",
        ),
        ({"method": "irnet", "quantizers": {"ede": 3}}, "stage 2: EDESign cannot be scheduled: received ede=3 ("),
        ({"method": "irnet", "quantizers": {"ede": ["a", "b"]}}, "stage 2: EDESign cannot be scheduled: received ede="),
        ({"method": "irnet", "quantizers": {"edd": [1.0, 2.0]}}, "received 'edd'; did you mean ede?"),
        ({"method": "float", "quantizers": {"beta": [5.0, 9.0]}}, "stage 2: no quantizer of 'model"),
        (
            {"kernels": "real", "method": "float"},
            "'float' has no signs of activations: received stage.2.kernels='real'",
        ),
        ({"quantizers": {"epochs": 3}}, "quantizers sets what follows from the stage: received 'epochs', remove it"),
        ({"distillation": {"teacher": "none"}}, "none': give a run or a .keras file"),
        ({"distillation": {"teacher": "x", "temperature": 0}}, "key 'stage.2.distillation.temperature' of the recipe"),
        ({"options": {"width": -1.0}}, "tiny: width: "),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_errors_of_later_stages_are_raised_before_the_first_step(
    recipe: Recipe, tmp_path: Path, second: dict[str, object], message: str
):
    try:
        found = refused(recipe, second, tmp_path / "run")
    except UsageError as error:
        found = str(error)
    assert message in found


def test_weights_that_cannot_be_passed_on_are_an_error_before_the_first_step(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def build(
        _: str, method: Method, *, input_shape: tuple[int, int, int], classes: int, width: float = 1.0
    ) -> tf.keras.Model:
        inputs = tf.keras.Input(input_shape, name="image")
        x = tf.keras.layers.Conv2D(round(4 * width), 3, name="conv")(inputs)
        x = tf.keras.layers.Dense(classes, name="logits")(tf.keras.layers.Flatten()(x))
        return tf.keras.Model(inputs, x)

    monkeypatch.setattr("kbnn.training.networks.build", build)
    found = refused(recipe, {"method": "float", "options": {"width": 2.0}}, tmp_path / "run")
    assert found.startswith("stage 2: ")
    assert "'conv" in found or "conv/kernel" in found
    found = refused(recipe, {"method": "float", "train": "batch_norm"}, tmp_path / "run")
    assert found.startswith("stage 2: no batch normalization to retrain: received 'model")
    # The network has no layers with the method's penalty.
    found = refused(recipe, {"method": "xnor+ml", "penalty_warmup": 1}, tmp_path / "run")
    assert found.startswith("stage 2: RegularizationWarmup has no effect: received 'model")


def test_kernels_that_cannot_stay_binary_are_an_error_before_the_first_step(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Half-half marks the first half of 18 equal magnitudes; of 9, it would mark the same ones again."""

    def build(_: str, method: Method, *, input_shape: tuple[int, int, int], classes: int) -> tf.keras.Model:
        inputs = tf.keras.Input(input_shape, name="image")
        x = method.convolution(tf.keras.layers.Concatenate(name="twice")([inputs, inputs]), 4, 3, name="conv")
        x = tf.keras.layers.Flatten(name="flat")(tf.keras.layers.BatchNormalization(name="bn")(x))
        return tf.keras.Model(inputs, tf.keras.layers.Dense(classes, name="logits")(x))

    monkeypatch.setattr("kbnn.training.networks.build", build)
    found = refused(recipe, {"method": "siman", "train": "batch_norm"}, tmp_path / "run")
    assert found.startswith("stage 2: layer 'conv' cannot keep ±1 kernels: its HalfHalf maps them to other signs")


def test_a_teacher_of_other_classes(recipe: Recipe, tmp_path: Path):
    digits = datasets.load("digits")
    teacher = Run.new(tmp_path / "teacher", recipe)
    teacher.start(dataclasses.replace(digits, classes=tuple("abcdefghij")))
    inputs = tf.keras.Input((8, 8, 1))
    network = tf.keras.Model(inputs, tf.keras.layers.Dense(10)(tf.keras.layers.Flatten()(inputs)))
    named = dataclasses.replace(digits, classes=tuple("jihgfedcba"))
    with pytest.raises(KbnnError, match=r"has no model\.keras: resume it"):
        _teacher(str(teacher.folder), named)
    teacher.save(network)
    with pytest.raises(
        UsageError, match=r"does not have the classes that run '.*teacher' was trained on: its classes are"
    ):
        _teacher(str(teacher.folder), named)
    # Data that is passed in Python has numbers for classes.
    assert _teacher(str(teacher.folder), digits).output_shape == (None, 10)


def test_patience_needs_images_to_validate_on(recipe: Recipe, tmp_path: Path):
    with pytest.raises(UsageError, match=r"stage.1.patience=2 needs validation images"):
        train(recipe.changed({"stage.1.patience": 2, "data.validation": 0.0}), tmp_path / "run")


@pytest.mark.slow
def test_training_with_a_teacher(finished: Run, recipe: Recipe, tmp_path: Path):
    taught = recipe.changed({"stage.1.distillation": {"teacher": str(finished.folder), "share": 1.0}})
    run = train(taught, tmp_path / "run")
    assert run.history()[-1]["loss"] < 0.7 * run.history()[0]["loss"]


def test_a_teacher_of_other_images(recipe: Recipe, tmp_path: Path):
    inputs = tf.keras.Input((4, 4, 1))
    outputs = tf.keras.layers.Dense(10)(tf.keras.layers.Flatten()(inputs))
    tf.keras.Model(inputs, outputs).save(tmp_path / "teacher.keras")
    taught = recipe.changed({"stage.1.distillation": {"teacher": str(tmp_path / "teacher.keras")}})
    with pytest.raises(UsageError, match=r"does not fit data set 'digits': received input \(4, 4, 1\) and 10 classes"):
        train(taught, tmp_path / "run")


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another(finished: Run, recipe: Recipe, tmp_path: Path):
    still = {"stage.1.epochs": 1, "stage.1.learning_rate": 1e-9}
    started = recipe.changed({"model.weights": str(finished.folder), **still})
    figures = train(started, tmp_path / "run").history()[0]
    assert figures["val_loss"] == pytest.approx(finished.history()[-1]["val_loss"], rel=0.05)


def test_weights_that_do_not_exist(recipe: Recipe, tmp_path: Path):
    with pytest.raises(KbnnError, match=r"no trained weights '.*nothing\.h5' of .*, and no such path"):
        train(recipe.changed({"model.weights": str(tmp_path / "nothing.h5")}), tmp_path / "run")


@pytest.mark.slow
def test_tensorboard_has_scalars_and_histograms(whole: Run):
    tags: dict[str, set[str]] = {}
    for path in whole.logs.rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags.setdefault(value.metadata.plugin_data.plugin_name, set()).add(value.tag)
    assert tags["scalars"] >= {
        "epoch_loss",
        "epoch_accuracy",
        "epoch_learning_rate",
        "epoch_flip_ratio/conv",
        "epoch_weight_entropy/conv",
    }
    assert any("conv/" in tag for tag in tags["histograms"])


@pytest.mark.slow
def test_without_validation_images_there_is_no_best_model(recipe: Recipe, tmp_path: Path):
    run = train(recipe.changed({"data.validation": 0.0, "stage.1.epochs": 1}), tmp_path / "run")
    assert not run.has("best")
    assert "val_loss" not in run.history()[0]
