"""Training progress on stderr."""

import time
from dataclasses import dataclass
from typing import Any

import rich.console
import rich.progress
import tensorflow as tf

from kbnn.training import Run


class Progress(tf.keras.callbacks.Callback):
    """A bar with the time left on a terminal, and one line an epoch everywhere."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        self._console = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._bar = rich.progress.Progress(
            "{task.description}",
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._bar.start()
        self._task = self._bar.add_task("training", total=self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()
        self._bar.reset(self._task, total=self.params["steps"], description=f"epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._bar.update(self._task, completed=batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.monotonic() - self._began
        figures = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        self._console.print(f"epoch {epoch + 1}/{self.epochs}  {figures}  {seconds:.1f} s")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._bar.stop()


@dataclass(frozen=True)
class Summary:
    """How a run ended."""

    run: str
    epochs: int
    metrics: dict[str, float]

    def __str__(self) -> str:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"{self.run}: {self.epochs} epochs  {figures}"


def summary(run: Run) -> Summary:
    """The last epoch of a run."""
    last: dict[str, Any] = run.history()[-1]
    return Summary(str(run.folder), int(last.pop("epoch")), last)
