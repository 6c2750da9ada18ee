"""Training progress on stderr."""

import time
from types import TracebackType

import rich.console
import rich.progress
import tensorflow as tf

_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


class Progress(tf.keras.callbacks.Callback):
    """On a terminal a bar with the time left of the whole run; everywhere one line an epoch.

    In a `with` block the bar goes away also when training ends by an error.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        self._console = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = rich.progress.Progress(
            "{task.description}",
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=epochs, start=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()
        self._epoch = epoch
        self._bar.start_task(self._task)
        self._bar.update(self._task, completed=epoch, description=f"epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._bar.update(self._task, completed=self._epoch + (batch + 1) / self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.monotonic() - self._began
        figures = "  ".join(f"{name} {logs[name]:.4f}" for name in _FIGURES if logs and name in logs)
        self._console.print(f"epoch {epoch + 1}/{self.epochs}  {figures}  {seconds:.1f} s")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._bar.stop()
