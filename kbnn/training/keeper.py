"""Saves a run while it trains, and stops it on SIGINT, SIGTERM or SIGHUP."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import tensorflow as tf

from kbnn.errors import KbnnError
from kbnn.training.checkpoints import Position, TrainingState, latest
from kbnn.training.run import History, Run

# A checkpoint is written at least this often, even in the middle of an epoch.
SECONDS = 600.0

# SIGHUP: the terminal was closed, for example by the end of an ssh session. Windows does not have it.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_Handler = Callable[[int, FrameType | None], object] | signal.Handlers | int | None


class InterruptedRunError(KbnnError):
    """A signal stopped the training, after saving it. The exit status is the shell's for the signal, such as 130.

    Args:
        what: where training stopped, and where it is saved.
        received: the signal.
    """

    def __init__(self, what: str, received: signal.Signals) -> None:
        super().__init__(f"{what}; resume it")
        self.what = what
        self.received = received
        self.exit_status = 128 + received


class Interruption:
    """Records SIGINT, SIGTERM and SIGHUP within a `with` block; a second SIGINT or SIGTERM has its usual effect.

    A second SIGHUP is ignored, because closing a terminal sends several. A signal that the process was started to
    ignore, as by nohup, stays ignored. Python handles signals in the main thread only: in other threads, nothing is
    recorded.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            # None: a handler that was not installed by Python, which could not be restored.
            self._before = {k: handler for k, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        for other, handler in self._before.items():
            signal.signal(other, signal.SIG_IGN if other.name == "SIGHUP" else handler)


class Keeper(tf.keras.callbacks.Callback):
    """Saves history, models and checkpoints after each epoch, and a checkpoint during long epochs and before stopping.

    The history holds all of Keras's logs except those of single layers, whose names contain a "/".
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

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._metrics = [variable for metric in self.model.metrics for variable in metric.variables]
        self._restored = [variable.numpy() for variable in self._metrics]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._begun = self.position
        if self.position.step:
            # Keras has just reset them, although this epoch is being continued.
            for variable, value in zip(self._metrics, self._restored, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.position = self._begun.after(batch + 1)
        # Saving reads variables that are summed over workers, so with several processes all of them would have to save.
        if self.position.step == self.steps or self._interruption is None:
            return
        if self._interruption.received or time.monotonic() - self._saved_at > SECONDS:
            self.model.check_weights()
            self.checkpoint()
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.position, finished = self.position.next_epoch(), epoch + 1
        figures = {**(logs or {}), "learning_rate": _learning_rate(self.model.optimizer)}
        row = {name: float(value) for name, value in figures.items() if "/" not in name}
        history = [*self._run.history()[: finished - 1], {"stage": self.position.stage + 1, "epoch": finished, **row}]
        with self._saving():
            self._run.write_history(history)
            self._run.save(self._network)
            if best_epoch(history, self.position.stage) == finished:
                self._run.keep_as_best()
        self.checkpoint()
        self._stop_if_asked()
        if self.out_of_patience():
            self.model.stop_training = True

    def out_of_patience(self) -> bool:
        """Whether validation accuracy has not improved for as many epochs as the stage's patience."""
        patience = self._run.recipe.stage[self.position.stage].patience
        validated = _validated(self._run.history(), self.position.stage)
        if patience is None or len(validated) <= patience:
            return False
        return max(validated[-patience:])[0] <= max(validated[:-patience])[0]

    def checkpoint(self) -> None:
        """Saves the current state.

        Raises:
            KbnnError: the disk is full or cannot be written.
        """
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
                f"the checkpoint of step {saved.position.total} is intact, free space and resume the run"
                if saved
                else "there is no checkpoint yet"
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
    """The epoch with the best validation accuracy of a stage (counted from 0); the last one if several are equal."""
    validated = _validated(history, stage)
    return max(validated)[1] if validated else None


def _validated(history: History, stage: int) -> list[tuple[float, int]]:
    """Validation accuracy and number of each epoch of a stage."""
    rows = (row for row in history if row["stage"] == stage + 1 and "val_accuracy" in row)
    return [(row["val_accuracy"], int(row["epoch"])) for row in rows]


def _learning_rate(optimizer: tf.keras.optimizers.Optimizer) -> float:
    rate = optimizer.learning_rate
    return float(tf.convert_to_tensor(rate(optimizer.iterations) if callable(rate) else rate))
