"""Checkpoints: everything that decides the next step of a run."""

from dataclasses import dataclass, replace
from pathlib import Path

import tensorflow as tf

from kbnn.errors import KbnnError
from kbnn.training.networks import random_states

_POSITION = "position/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True, order=True)
class Position:
    """How far a run has come: stages finished, epochs of the stage, steps of the epoch, steps in all."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    total: int = 0

    def after(self, steps: int) -> "Position":
        """Further on in the same epoch."""
        return replace(self, step=self.step + steps, total=self.total + steps)

    def next_epoch(self) -> "Position":
        return replace(self, epoch=self.epoch + 1, step=0)

    def next_stage(self) -> "Position":
        return replace(self, stage=self.stage + 1, epoch=0, step=0)


def latest(folder: Path) -> tuple[str | None, Position]:
    """The last checkpoint in a folder and its position.

    Raises:
        KbnnError: the checkpoint is damaged.
    """
    path = tf.train.latest_checkpoint(str(folder))
    if path is None:
        return None, Position()
    try:
        stored = tf.train.load_checkpoint(path).get_tensor(_POSITION)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    return path, Position(*(int(value) for value in stored))


class TrainingState:
    """Weights, optimizer, random generators, metrics of the epoch so far, and the position, as checkpoints."""

    def __init__(self, folder: Path, network: tf.keras.Model, trainer: tf.keras.Model) -> None:
        self._position = tf.Variable([0, 0, 0, 0], trainable=False, dtype=tf.int64)
        state = tf.train.Checkpoint(
            position=self._position,
            network=network,
            optimizer=trainer.optimizer,
            metrics=trainer.metrics,
            random=random_states(network),
        )
        self._manager = tf.train.CheckpointManager(state, str(folder), max_to_keep=2, checkpoint_name="step")

    def save(self, position: Position) -> None:
        """Writes a checkpoint; the one before stays until it is complete."""
        values = [position.stage, position.epoch, position.step, position.total]
        if self._manager.latest_checkpoint and self._position.numpy().tolist() == values:
            return
        self._position.assign(values)
        try:
            self._manager.save(checkpoint_number=position.total)
        except BaseException:
            self._discard(position.total)
            raise

    def restore(self, path: str) -> None:
        """Goes back to a checkpoint.

        Raises:
            KbnnError: it is damaged, or of another network.
        """
        try:
            self._manager.checkpoint.restore(path).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise _damaged(path, error) from error

    def _discard(self, number: int) -> None:
        """Removes what a failed save has left."""
        for left in Path(self._manager.directory).glob(f"step-{number}.*"):
            left.unlink(missing_ok=True)


def _damaged(path: str, error: Exception) -> KbnnError:
    reason = " ".join(str(error).split())[:200]
    return KbnnError(f"cannot go on from checkpoint '{path}' ({reason}): it is damaged, start a new run")
