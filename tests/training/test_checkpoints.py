"""Checkpoints: which one a run resumes from, and the errors for unusable ones."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sample_runs
import tensorflow as tf
from sample_runs import PowerCutError, assert_equal

from kbnn import methods
from kbnn.errors import KbnnError
from kbnn.training import Learner, Recipe, Run, train
from kbnn.training.checkpoints import Position, TrainingState, finish, latest
from kbnn.training.networks import random_states


@dataclass(frozen=True)
class Training:
    network: tf.keras.Model
    learner: Learner

    @staticmethod
    def of(classes: int) -> "Training":
        network = sample_runs.network("", methods.get("bireal"), input_shape=(8, 8, 1), classes=classes)
        learner = Learner(network)
        learner.compile(tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9))
        learner.optimizer._create_all_weights(learner.trainable_variables)
        return Training(network, learner)

    def state(self, folder: Path) -> TrainingState:
        return TrainingState(folder, self.network, self.learner)


@pytest.fixture(scope="module")
def training() -> Training:
    return Training.of(10)


def test_two_are_kept_and_the_newest_is_the_latest(training: Training, tmp_path: Path):
    state = training.state(tmp_path)
    for step in (5, 10, 15):
        state.save(Position(0, step // 5, 0, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-15"]
    assert latest(tmp_path).position == Position(0, 3, 0, 15)
    assert latest(tmp_path / "nothing") is None


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["tensors.index", "tensors.data-00000-of-00001", "state.json"])
@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_one_is_skipped_with_a_warning(
    training: Training, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, harm: Callable[[Path], object]
):
    state = training.state(tmp_path)
    for step in (5, 10):
        state.save(Position(0, step // 5, 0, step))
    harm(tmp_path / "step-10" / name)
    with caplog.at_level(logging.WARNING):
        found = latest(tmp_path)
    assert found.position.total == 5
    assert "step-10' is damaged" in caplog.text
    assert "resuming from 'step-5' instead" in caplog.text
    harm(tmp_path / "step-5" / name)
    with pytest.raises(
        KbnnError, match=r"cannot resume: checkpoint '.*step-10' is damaged .*, and there is no intact one"
    ):
        latest(tmp_path)


@pytest.mark.parametrize("name", ["/dev/zero", "../step-5/state.json", "absent", "."])
def test_a_record_that_names_other_files_is_damaged(name: str, tmp_path: Path):
    (tmp_path / "step-5").mkdir()
    record = {"layout": 2, "position": [0, 0, 5, 5], "files": {name: "0" * 64}}
    (tmp_path / "step-5" / "state.json").write_text(json.dumps(record))
    with pytest.raises(KbnnError, match="is not a file in it"):
        latest(tmp_path)


def test_a_finished_run_needs_no_tensors(training: Training, tmp_path: Path):
    training.state(tmp_path).save(Position(0, 1, 0, 5))
    finish(tmp_path, Position(1, 0, 0, 5))
    finish(tmp_path, Position(1, 0, 0, 5))
    assert [path.name for path in tmp_path.rglob("*")] == ["finished", "state.json"]
    assert latest(tmp_path).position == Position(1, 0, 0, 5)


def write_layout_1(folder: Path, training: Training, position: tuple[int, ...], metrics: int) -> None:
    """Writes a checkpoint of version 0.1, which had no top-5 accuracy."""
    checkpoint = tf.train.Checkpoint(
        position=tf.Variable(position, dtype=tf.int64),
        network=training.network,
        optimizer=training.learner.optimizer,
        metrics=training.learner.metrics[:metrics],
        random=random_states(training.network),
    )
    tf.train.CheckpointManager(checkpoint, str(folder), 2, checkpoint_name="step").save(checkpoint_number=position[-1])


def test_an_older_layout_is_read_between_epochs(training: Training, tmp_path: Path):
    write_layout_1(tmp_path, training, (0, 2, 0, 10), metrics=3)
    kept = [weight.numpy() for weight in training.network.trainable_weights]
    found = latest(tmp_path)
    assert (found.layout, found.position) == (1, Position(0, 2, 0, 10))
    for weight in training.network.trainable_weights:
        weight.assign(tf.zeros_like(weight))
    state = training.state(tmp_path)
    state.restore(found)
    for weight, before in zip(training.network.trainable_weights, kept, strict=True):
        np.testing.assert_array_equal(weight, before)
    for step in (15, 20):
        state.save(Position(0, step // 5, 0, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-15", "step-20"]


def test_an_unreadable_older_layout_is_explained(training: Training, tmp_path: Path):
    write_layout_1(tmp_path, training, (0, 2, 3, 13), metrics=3)
    with pytest.raises(KbnnError, match="an older version of kbnn wrote it in layout 1, this version reads layout 2"):
        training.state(tmp_path).restore(latest(tmp_path))


def test_a_checkpoint_of_another_network_is_not_reported_as_damaged(training: Training, tmp_path: Path):
    training.state(tmp_path).save(Position(0, 1, 0, 5))
    with pytest.raises(KbnnError, match="does not fit the network that this version of kbnn builds"):
        Training.of(4).state(tmp_path).restore(latest(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(finished: Run, recipe: Recipe, tmp_path: Path):
    class Cut(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                raise PowerCutError

    output = tmp_path / "run"
    with pytest.raises(PowerCutError):
        train(recipe, output, callbacks=[Cut()])
    damage(output / "checkpoints" / "step-10" / "tensors.data-00000-of-00001")
    assert_equal(train(recipe, output, resume=True), finished)
    # A finished run keeps two models of equal weights and no checkpoints.
    sizes = {path: path.stat().st_size for path in output.rglob("*") if path.is_file()}
    models = sum(size for path, size in sizes.items() if path.suffix == ".keras")
    assert sum(size for path, size in sizes.items() if path.is_relative_to(output / "checkpoints")) < 300
    assert not [path for path in sizes if path.suffix == ".keras" and path.name not in ("model.keras", "best.keras")]
    assert models <= 2 * (output / "model.keras").stat().st_size
