"""What a run keeps while it trains, and how it stops when asked to."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import tensorflow as tf

from kbnn.errors import KbnnError
from kbnn.training.checkpoints import Position, TrainingState, latest
from kbnn.training.run import History, Run

# A checkpoint is written at least this often, also in the middle of an epoch.
SECONDS = 600.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(KbnnError):
    """Training was asked to stop, and did. The exit status is the shell's for the signal: 130 or 143.

    Args:
        what: where it stopped, and where it is saved.
        received: the signal.
    """

    def __init__(self, what: str, received: signal.Signals) -> None:
        super().__init__(f"{what}; resume it")
        self.what = what
        self.received = received
        self.exit_status = 128 + received


class Interruption:
    """Notes SIGINT and SIGTERM within its block; the second one has its usual effect at once.

    Outside the main thread, where Python cannot handle signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Keeper(tf.keras.callbacks.Callback):
    """Saves history, models and checkpoints after each epoch, and in the middle of a long one or when asked to stop.

    The history has every figure of Keras's logs but those of single layers, whose names have a "/".
    """

    def __init__(
        self,
        run: Run,
        network: tf.keras.Model,
        state: TrainingState,
        position: Position,
        steps: int,
        interruption: Interruption | None,
    ) -> None:
        super().__init__()
        self.position = position
        self.steps = steps
        self._run = run
        self._network = network
        self._state = state
        self._interruption = interruption
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._metrics = [variable for metric in self.model.metrics for variable in metric.variables]
        self._restored = [variable.numpy() for variable in self._metrics]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._begun = self.position
        if self.position.step:
            # Keras has just reset them, though the epoch continues in its middle.
            for variable, value in zip(self._metrics, self._restored, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.position = self._begun.after(batch + 1)
        # Saving reads what is summed over workers: only where there is one process can it do so on its own.
        if self.position.step == self.steps or self._interruption is None:
            return
        if self._interruption.received or time.monotonic() - self._saved_at > SECONDS:
            self._checkpoint()
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.position, finished = self.position.next_epoch(), epoch + 1
        figures = {**(logs or {}), "learning_rate": _learning_rate(self.model.optimizer)}
        row = {name: float(value) for name, value in figures.items() if "/" not in name}
        history = [*self._run.history()[: finished - 1], {"stage": self.position.stage + 1, "epoch": finished, **row}]
        with self._saving():
            self._run.write_history(history)
            self._run.save(self._network)
            if best_epoch(history, self.position.stage) == finished:
                self._run.keep_as_best()
        self._checkpoint()
        self._stop_if_asked()
        if self.out_of_patience():
            self.model.stop_training = True

    def out_of_patience(self) -> bool:
        """Whether the stage's last epochs, as many as its patience, were no better than the best before them."""
        patience = self._run.recipe.stage[self.position.stage].patience
        validated = _validated(self._run.history(), self.position.stage)
        if patience is None or len(validated) <= patience:
            return False
        return max(validated[-patience:])[0] <= max(validated[:-patience])[0]

    def _checkpoint(self) -> None:
        with self._saving():
            self._state.save(self.position)
        self._saved_at = time.monotonic()

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError, KbnnError) as error:
            reason = " ".join(str(error).split())[:300]
            saved = latest(self._run.checkpoints)
            kept = (
                f"step {saved.position.total} is safe there, free space and resume it"
                if saved
                else "there was no checkpoint yet"
            )
            raise KbnnError(
                f"cannot save run '{self._run.folder}' after step {self.position.total} ({reason}): {kept}"
            ) from error

    def _stop_if_asked(self) -> None:
        received = None if self._interruption is None else self._interruption.received
        if received:
            raise InterruptedRunError(
                f"stopped by {received.name} after step {self.position.total}: run '{self._run.folder}' is saved",
                received,
            )


def best_epoch(history: History, stage: int) -> int | None:
    """The epoch of a stage (counted from 0) that validated best; the last one among equals."""
    validated = _validated(history, stage)
    return max(validated)[1] if validated else None


def _validated(history: History, stage: int) -> list[tuple[float, int]]:
    """Validation accuracy and epoch of each epoch of a stage."""
    rows = (row for row in history if row["stage"] == stage + 1 and "val_accuracy" in row)
    return [(row["val_accuracy"], int(row["epoch"])) for row in rows]


def _learning_rate(optimizer: tf.keras.optimizers.Optimizer) -> float:
    rate = optimizer.learning_rate
    return float(tf.convert_to_tensor(rate(optimizer.iterations) if callable(rate) else rate))
