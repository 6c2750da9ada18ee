"""Runs: the files they write, how they resume after an interruption, and their errors."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import photographs
import pytest
import tensorflow as tf
from sample_runs import AtStep, PowerCutError, assert_equal, cut, send

from kbnn.errors import KbnnError, UsageError
from kbnn.precision import precision
from kbnn.training import DivergenceError, InterruptedRunError, Recipe, Run, evaluate, result, train
from kbnn.training.checkpoints import latest
from kbnn.training.keeper import Interruption
from kbnn.training.progress import Progress

pytestmark = pytest.mark.usefixtures("small")


def reached(output: Path) -> int:
    """The step of the last checkpoint."""
    checkpoint = latest(output / "checkpoints")
    assert checkpoint is not None
    return checkpoint.position.total


def test_a_run_is_a_folder(finished: Run, recipe: Recipe):
    assert {path.name for path in finished.folder.iterdir()} >= {
        "best.keras", "checkpoints", "config.toml", "history.csv", "model.keras", "result.json",
    }  # fmt: skip
    assert Run.open(finished.folder).recipe == recipe
    history = finished.history()
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["learning_rate"] == pytest.approx(0, abs=1e-9)
    assert set(history[0]) == {
        "stage", "epoch", "loss", "penalty", "accuracy", "top5", "flip_ratio", "learning_rate",
        "val_loss", "val_penalty", "val_accuracy", "val_top5",
    }  # fmt: skip


@pytest.mark.slow
def test_the_result_is_that_of_the_model(finished: Run):
    data, found = finished.dataset(), result(finished)
    assert found.top1 == evaluate(finished.model(), data).top1
    assert found.best_top1 == evaluate(finished.model("best"), data).top1
    assert (found.samples, found.epochs, found.dataset) == (360, 3, "digits")
    assert "paper" not in str(found)


def test_best_is_the_epoch_that_validated_best(finished: Run):
    data, best = finished.dataset(), max(row["val_accuracy"] for row in finished.history())
    logits = finished.model("best").predict(data.inputs(data.validation), verbose=0)
    assert (logits.argmax(-1) == data.validation.labels).mean() == pytest.approx(best)


# With five steps per epoch and two per execution, the signals arrive within an epoch and at its end.
@pytest.mark.slow
@pytest.mark.core("7")
@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize(
    ("step", "number", "status"), [(7, signal.SIGHUP, 129), (10, signal.SIGTERM, 143)], ids=["7", "10"]
)
def test_after_a_signal_a_resumed_run_is_bit_equal(
    finished: Run, recipe: Recipe, tmp_path: Path, step: int, number: signal.Signals, status: int
):
    output, before = tmp_path / "run", {each: signal.getsignal(each) for each in signal.Signals}
    with pytest.raises(
        InterruptedRunError,
        match=rf"stopped by {number.name} after step \d+: run '.*' is saved; resume it",
    ) as caught:
        train(recipe, output, callbacks=[AtStep(step, send(number))])
    assert caught.value.exit_status == status
    assert {each: signal.getsignal(each) for each in signal.Signals} == before
    assert step <= reached(output) <= step + 2
    assert_equal(train(recipe, output, resume=True), finished)


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_may_send_several_signals(first: signal.Signals):
    with Interruption() as interruption:
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert interruption.received == first
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.usefixtures("usual_signals")
def test_under_nohup_training_survives_a_closed_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGHUP)
    assert interruption.received is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_progress_survives_a_closed_terminal(monkeypatch: pytest.MonkeyPatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        with pytest.raises(BrokenPipeError):
            print("lost", file=closed, flush=True)
        monkeypatch.setattr("sys.stderr", closed)
        with Progress(epochs=2) as progress:
            progress.say("an epoch")
        # What cannot be written stays in the file's buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)


@pytest.mark.slow
@pytest.mark.xla
def test_a_resumed_run_is_bit_equal_when_compiled(recipe: Recipe, tmp_path: Path):
    with pytest.raises(InterruptedRunError):
        train(recipe, tmp_path / "run", callbacks=[AtStep(7, send(signal.SIGTERM))])
    assert_equal(train(recipe, tmp_path / "run", resume=True), train(recipe, tmp_path / "whole"))


@pytest.mark.slow
def test_after_a_crash_a_run_resumes_from_the_last_epoch(finished: Run, recipe: Recipe, tmp_path: Path):
    output = tmp_path / "run"
    for step in (3, 8):
        with pytest.raises(PowerCutError):
            train(recipe, output, resume=True, callbacks=[AtStep(step, cut)])
    assert len(Run.open(output).history()) == 1
    assert_equal(train(recipe, output, resume=True), finished)


@pytest.mark.slow
def test_a_crash_between_history_and_checkpoint(
    finished: Run, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(tf.train.Checkpoint, "write", lambda *_, **__: cut(None))
        with pytest.raises(PowerCutError):
            train(recipe, output)
    assert len(Run.open(output).history()) == 1
    assert_equal(train(recipe, output, resume=True), finished)


def test_resuming_a_finished_run_has_no_effect(finished: Run, recipe: Recipe):
    before = (finished.folder / "model.keras").read_bytes()
    train(recipe, finished.folder, resume=True)
    assert (finished.folder / "model.keras").read_bytes() == before


@pytest.mark.slow
def test_long_epochs_are_also_saved_midway(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kbnn.training.keeper.SECONDS", 0.0)
    with pytest.raises(PowerCutError):
        train(recipe, tmp_path / "run", callbacks=[AtStep(4, cut)])
    position = latest(tmp_path / "run" / "checkpoints").position
    assert (position.epoch, position.step, position.total) == (0, 4, 4)


def test_resuming_with_other_settings_says_which(finished: Run, recipe: Recipe):
    changed = recipe.changed({"stage.1.epochs": 5, "data.batch": 64})
    with pytest.raises(UsageError, match=r"other settings \(data.batch: 256 -> 64; stage.1.epochs: 3 -> 5\)"):
        train(changed, finished.folder, resume=True)


def test_the_papers_accuracy_is_not_a_setting(finished: Run, recipe: Recipe):
    changed = recipe.changed({"paper": 50.0, "paper_top5": 90.0, "source": "a paper"})
    assert_equal(train(changed, finished.folder, resume=True), finished)


def test_a_run_is_not_overwritten(finished: Run, recipe: Recipe):
    with pytest.raises(UsageError, match="already exists: resume it"):
        train(recipe, finished.folder)


@pytest.mark.slow
def test_one_process_at_a_time_trains_a_run(recipe: Recipe, tmp_path: Path):
    refusals = []

    def train_too(_: AtStep) -> None:
        with pytest.raises(UsageError, match="another process is writing"):
            train(recipe, tmp_path / "run", resume=True)
        refusals.append(sorted(path.name for path in (tmp_path / "run").iterdir()))

    run = train(recipe, tmp_path / "run", callbacks=[AtStep(7, train_too)])
    assert len(refusals) == 1
    assert "model.keras" in refusals[0]
    assert [row["epoch"] for row in run.history()] == [1, 2, 3]


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_not_a_run(recipe: Recipe, tmp_path: Path, resume: bool):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not a run: choose another output folder"):
        train(recipe, tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_step_layer_and_checkpoint(recipe: Recipe, tmp_path: Path):
    def poison(callback: AtStep) -> None:
        layer = callback.model.get_layer("conv")
        layer.set_weights([np.full_like(weight, np.nan) for weight in layer.get_weights()])

    with pytest.raises(DivergenceError) as caught:
        train(recipe, tmp_path / "run", callbacks=[AtStep(7, poison)])
    message = str(caught.value)
    assert message.startswith("training diverged in step 8 (epoch 2): the weights of layer 'conv' are not finite")
    assert "the last good checkpoint is '" in message
    assert "step-5' (step 5)" in message


@pytest.mark.slow
def test_a_damaged_checkpoint_is_an_error(finished: Run, recipe: Recipe, tmp_path: Path):
    output = tmp_path / "run"
    with pytest.raises(InterruptedRunError):
        train(recipe, output, callbacks=[AtStep(2, send(signal.SIGTERM))])
    for path in (output / "checkpoints").rglob("*.index"):
        path.write_bytes(b"garbage")
    with pytest.raises(
        KbnnError,
        match=r"cannot resume: checkpoint '.*' is damaged \(tensors.index has changed\), and there is no intact",
    ):
        train(recipe, output, resume=True)


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run without its test result."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    (tmp_path / "copy" / "result.json").unlink()
    return Run.open(tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("stage,epoch,loss\n1,1,0.5\n1,", 3),
        ("stage,epoch,loss\n1,1,low\n", 2),
        ("stage,epoch\n1,1,3\n", 2),
        ("a\n1\n", 2),
        ("\0\xff", 1),
    ],
    ids=["cut", "words", "too long", "strange", "binary"],
)
def test_a_damaged_history_is_an_error(copy: Run, content: str, line: int):
    (copy.folder / "history.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(KbnnError, match=rf"history\.csv' is damaged in line {line}: restore it, or start a new run"):
        copy.history()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("history.csv", "its last checkpoint is from epoch 3, its history ends at epoch 0"),
        ("checkpoints", "its last checkpoint is from epoch 0, its history ends at epoch 3"),
        ("config.toml", "exists and is not a run"),
        ("model.keras", r"has no model\.keras"),
    ],
)
def test_an_incomplete_run_is_not_changed(copy: Run, name: str, message: str):
    removed = copy.folder / name
    shutil.rmtree(removed) if removed.is_dir() else removed.unlink()
    left = sorted(path.name for path in copy.folder.iterdir())
    with pytest.raises(KbnnError, match=message):
        train(copy.recipe, copy.folder, resume=True)
    assert sorted(path.name for path in copy.folder.iterdir()) == left


def test_a_damaged_result_is_an_error(finished: Run, copy: Run):
    path = copy.folder / "result.json"
    known = json.loads((finished.folder / "result.json").read_text())
    for content in ('{"run": "copy"', "[]", 100_000 * "[", json.dumps({**known, "top1": "high"})):
        path.write_text(content)
        with pytest.raises(
            KbnnError, match=r"result\.json' is damaged .*: remove it and resume the run to write it again"
        ):
            result(copy)


def test_resuming_a_trained_run_evaluates_it(finished: Run, copy: Run):
    train(copy.recipe, copy.folder, resume=True)
    assert result(copy).top1 == result(finished).top1
    assert result(Run.open(copy.folder.rename(copy.folder.with_name("moved")))).run.endswith("moved")


@pytest.mark.slow
def test_a_run_finds_images_that_were_moved(tmp_path: Path):
    photographs.write(tmp_path / "photos", ("dark", "light"), 8, [(9, 12)])
    recipe = Recipe.of("tiny", "bireal", folder=tmp_path / "photos", size=8, epochs=1)
    run = train(recipe, tmp_path / "run")
    (run.folder / "result.json").unlink()
    (tmp_path / "photos").rename(tmp_path / "pictures")
    with pytest.raises(UsageError, match=r"no folder of images at '.*photos'"):
        train(recipe, run.folder, resume=True)
    moved = recipe.changed({"data.folder": str(tmp_path / "pictures")})
    with pytest.raises(UsageError, match=r"was started with other settings \(data.flip: True -> False\)"):
        train(moved.changed({"data.flip": False}), run.folder, resume=True)
    train(moved, run.folder, resume=True)
    assert Run.open(run.folder).recipe.data.folder == str(tmp_path / "pictures")
    assert result(run).samples == 4
    assert Run.open(run.folder).dataset().test.size == 4


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_weights_that_it_started_from(finished: Run, recipe: Recipe, tmp_path: Path):
    shutil.copytree(finished.folder, tmp_path / "start")
    started = recipe.changed({"model.weights": str(tmp_path / "start")})
    with pytest.raises(InterruptedRunError):
        train(started, tmp_path / "run", callbacks=[AtStep(3, send(signal.SIGTERM))])
    shutil.rmtree(tmp_path / "start")
    run = train(started, tmp_path / "run", resume=True)
    assert len(run.history()) == 3
    with pytest.raises(UsageError, match="no trained weights"):
        train(started, tmp_path / "another")


def test_the_test_set_is_evaluated_in_float32(finished: Run):
    """Two classes that bfloat16 cannot tell apart."""
    with precision("mixed_bfloat16"):
        inputs = tf.keras.Input((8, 8, 1))
        logits = tf.keras.layers.Dense(10, name="logits")(tf.keras.layers.Flatten()(inputs))
        model = tf.keras.Model(inputs, logits)
    bias = np.zeros(10)
    bias[[3, 7]] = 1, 1.001
    model.get_layer("logits").set_weights([np.zeros((64, 10)), bias])
    data = finished.dataset()
    assert model.predict(np.zeros((1, 8, 8, 1)), verbose=0).argmax() == 3
    assert evaluate(model, data).top1 == np.mean(data.test.labels == 7)


def test_an_unfinished_run_has_no_model(recipe: Recipe, tmp_path: Path):
    run = Run.new(tmp_path / "run", recipe)
    recipe.write(run.folder / "config.toml")
    with pytest.raises(KbnnError, match=r"has no model\.keras: resume it"):
        run.model()
    with pytest.raises(KbnnError, match="has not finished"):
        result(run)


def filling(at_step: int, limit: int) -> AtStep:
    """Limits the size of files from a step on."""
    return AtStep(
        at_step,
        lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1])),
    )


@pytest.fixture
def unlimited() -> Iterator[None]:
    """Restores the limit on file sizes after a test."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_saved(finished: Run, recipe: Recipe, tmp_path: Path, unlimited: None):
    output, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(KbnnError, match=r"the checkpoint of step 5 is intact, free space and resume|File too large"):
        train(recipe, output, callbacks=[filling(7, 1000)])
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert reached(output) == 5
    assert not [path for path in output.rglob(".*") if path.name != ".gitignore"]
    assert not list((output / "checkpoints").glob("step-10*"))
    assert_equal(train(recipe, output, resume=True), finished)


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(recipe: Recipe, tmp_path: Path, unlimited: None):
    with pytest.raises(KbnnError, match=r"cannot save run .* after step 5 .*: there is no checkpoint yet"):
        train(recipe, tmp_path / "run", callbacks=[filling(1, 20_000)])
    assert not (tmp_path / "run").exists()
