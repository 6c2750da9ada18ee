"""Checkpoints: everything that determines the next step of a run, safe against power cuts.

Each is a folder `step-N` with TensorFlow's files and `state.json`: the position, the layout, and the SHA-256 of every
file. The folder is flushed to disk before it gets its final name, and the previous checkpoint is kept.
"""

import dataclasses
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import tensorflow as tf

from kbnn import files
from kbnn.errors import KbnnError
from kbnn.printable import printable
from kbnn.training.networks import random_states

# Incremented whenever the content or the structure of checkpoints changes.
LAYOUT = 2
KEPT = 2

_STATE = "state.json"
_TENSORS = "tensors"
_FINISHED = "finished"
# In layout 1, which TensorFlow's `CheckpointManager` wrote.
_POSITION_1 = "position/.ATTRIBUTES/VARIABLE_VALUE"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Position:
    """The progress of a run: finished stages, finished epochs of the stage, steps of the epoch, and total steps."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    total: int = 0

    def after(self, steps: int) -> "Position":
        """The position `steps` later in the same epoch."""
        return replace(self, step=self.step + steps, total=self.total + steps)

    def next_epoch(self) -> "Position":
        return replace(self, epoch=self.epoch + 1, step=0)

    def next_stage(self) -> "Position":
        return replace(self, stage=self.stage + 1, epoch=0, step=0)


@dataclass(frozen=True)
class Checkpoint:
    """A saved state. `prefix` is TensorFlow's prefix of its files; None for a finished run, which needs no tensors."""

    path: Path
    prefix: str | None
    position: Position
    layout: int = LAYOUT


def latest(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint in a folder, if there is one; a warning names newer ones that are damaged.

    Raises:
        KbnnError: all checkpoints are damaged.
    """
    damaged: list[str] = []
    for path in _candidates(folder):
        try:
            found = _read(path)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, tf.errors.OpError) as error:
            damaged.append(f"'{path}' is damaged ({' '.join(str(error).split())[:200]})")
            continue
        for problem in damaged:
            logger.warning("checkpoint %s: resuming from '%s' instead", printable(problem), path.name)
        return found
    if damaged:
        raise KbnnError(f"cannot resume: checkpoint {damaged[0]}, and there is no intact one; start a new run")
    return None


def _candidates(folder: Path) -> Iterator[Path]:
    """The paths of checkpoints, newest first; the mark of a finished run comes before them."""
    if (folder / _FINISHED).is_dir():
        yield folder / _FINISHED
    found = [*folder.glob("step-*"), *(path.with_suffix("") for path in folder.glob("step-*.index"))]
    numbered = {path: int(path.name.removeprefix("step-")) for path in found if re.fullmatch(r"step-\d+", path.name)}
    yield from sorted(numbered, key=lambda path: numbered[path], reverse=True)


def _read(path: Path) -> Checkpoint:
    if not path.is_dir():
        return _read_layout_1(path)
    state = json.loads((path / _STATE).read_text())
    for name, digest in state["files"].items():
        if Path(name).name != name or not (path / name).is_file():
            raise ValueError(f"{name} is not a file in it")
        if _digest(path / name) != digest:
            raise ValueError(f"{name} has changed")
    prefix = str(path / _TENSORS) if state["files"] else None
    return Checkpoint(path, prefix, Position(*state["position"]), state["layout"])


def _read_layout_1(path: Path) -> Checkpoint:
    reader = tf.train.load_checkpoint(str(path))
    # Reading a tensor verifies its checksum.
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    return Checkpoint(path, str(path), Position(*(int(value) for value in reader.get_tensor(_POSITION_1))), 1)


class TrainingState:
    """Saves and restores weights, optimizer, random generators and the current epoch's metrics."""

    def __init__(self, folder: Path, network: tf.keras.Model, learner: tf.keras.Model) -> None:
        self._folder = folder
        self._saved: Position | None = None
        self._parts = {"network": network, "optimizer": learner.optimizer, "random": random_states(network)}
        self._metrics = learner.metrics

    def save(self, position: Position) -> None:
        """Writes a checkpoint and keeps the previous one.

        Raises:
            KbnnError: the disk is full or cannot be written.
        """
        if position == self._saved:
            return
        target = self._folder / f"step-{position.total}"
        with files.replacing(target) as temporary:
            temporary.mkdir()
            tf.train.Checkpoint(**self._parts, metrics=self._metrics).write(str(temporary / _TENSORS))
            _seal(temporary, position)
            # An existing one of the same step is damaged, or belongs to the end of the previous stage.
            shutil.rmtree(target, ignore_errors=True)
        self._saved = position
        _prune(self._folder)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Returns to a checkpoint.

        Raises:
            KbnnError: it has another layout or belongs to another network.
        """
        # Metrics are reset in every epoch, so a checkpoint between epochs can be read even if they have another layout.
        between = checkpoint.layout != LAYOUT and checkpoint.position.step == 0
        parts = self._parts if between else {**self._parts, "metrics": self._metrics}
        try:
            tf.train.Checkpoint(**parts).read(checkpoint.prefix).assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise _does_not_fit(checkpoint, error) from error


def finish(folder: Path, position: Position) -> None:
    """Replaces the checkpoints of a finished run with a mark that it is finished."""
    mark = folder / _FINISHED
    if mark.is_dir():
        return
    with files.replacing(mark) as temporary:
        temporary.mkdir()
        _seal(temporary, position)
    _prune(folder, 0)


def _seal(folder: Path, position: Position) -> None:
    """Records the layout, the position and the files of a checkpoint's folder."""
    digests = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    state = {"layout": LAYOUT, "position": dataclasses.astuple(position), "files": digests}
    (folder / _STATE).write_text(json.dumps(state, indent=2) + "\n")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _prune(folder: Path, kept: int = KEPT) -> None:
    """Removes all checkpoints except the newest ones."""
    steps = [path for path in _candidates(folder) if path.name != _FINISHED]
    for path in steps[kept:]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        for part in folder.glob(f"{path.name}.*"):
            part.unlink(missing_ok=True)
    if not list(folder.glob("step-*.index")):
        (folder / "checkpoint").unlink(missing_ok=True)


def _does_not_fit(checkpoint: Checkpoint, error: Exception) -> KbnnError:
    reason = " ".join(str(error).split())[:200]
    if checkpoint.layout != LAYOUT:
        return KbnnError(
            f"cannot resume from checkpoint '{checkpoint.path}': an older version of kbnn wrote it in layout "
            f"{checkpoint.layout}, this version reads layout {LAYOUT} ({reason}); resume with that version, or start "
            f"a new run"
        )
    return KbnnError(
        f"cannot resume from checkpoint '{checkpoint.path}': it does not fit the network that this version of kbnn "
        f"builds ({reason}); resume with the version that wrote it, or start a new run"
    )
