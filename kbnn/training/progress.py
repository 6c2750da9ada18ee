"""What a person sees of a training on stderr: what is trained on what, and how far it has come."""

import time
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import rich.console
import rich.progress
import tensorflow as tf

from kbnn import accounting
from kbnn.datasets import Dataset
from kbnn.errors import KbnnError
from kbnn.training.recipe import Recipe

_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")
# A training step multiplies about three times as often as inference, and does as much again around it.
_TRAINING_FACTOR = 6
_SHOWN_CLASSES = 8


@dataclass(frozen=True)
class Plan:
    """What a run is about to do.

    `seconds` is what an epoch takes if this machine trains at the speed that its convolutions were measured with; None
    where a network's multiplications cannot be counted.
    """

    recipe: str
    dataset: str
    images: tuple[int, int, int]
    classes: tuple[str, ...]
    left_out: str
    network: str
    parameters: int
    binary_macs: int | None
    real_macs: int | None
    batch: int
    epochs: int
    seconds: float | None

    @staticmethod
    def of(recipe: Recipe, data: Dataset, network: tf.keras.Model, batch: int) -> "Plan":
        """The plan of a recipe that is about to train a network."""
        binary: int | None
        real: int | None
        seconds: float | None
        try:
            cost = accounting.count(network)
            binary, real = int(cost.binary_macs), int(cost.real_macs)
            seconds = _TRAINING_FACTOR * data.train.size * (cost.binary_macs + cost.real_macs) / macs_per_second()
        except KbnnError:
            binary, real, seconds = None, None, None
        return Plan(
            recipe.name,
            data.name,
            (data.train.size, data.validation.size, data.test.size),
            data.classes,
            data.left_out,
            f"{network.name} ({recipe.model.method}), input {'x'.join(map(str, data.input_shape))}",
            network.count_params(),
            binary,
            real,
            batch,
            recipe.epochs,
            seconds,
        )

    def __str__(self) -> str:
        train, validation, test = self.images
        named = ", ".join(self.classes[:_SHOWN_CLASSES]) + (", …" if len(self.classes) > _SHOWN_CLASSES else "")
        lines = [
            f"{self.recipe}: {self.epochs} epochs of {train // self.batch} steps, batch {self.batch}",
            f"data     {self.dataset}: {train:,} images to train on, {validation:,} to validate, {test:,} to test",
            f"classes  {len(self.classes)}: {named}",
            *([f"left out {self.left_out}"] if self.left_out else []),
            f"network  {self.network}, {self.parameters:,} parameters" + self._macs(),
        ]
        if self.seconds is not None:
            lines.append(f"time     about {_duration(self.seconds)} an epoch, estimated from the multiplications")
        return "\n".join(lines)

    def _macs(self) -> str:
        if self.binary_macs is None or self.real_macs is None:
            return ""
        return f", {self.binary_macs / 1e6:,.1f} M binary and {self.real_macs / 1e6:,.1f} M real MACs"


def macs_per_second() -> float:
    """The speed of a convolution of a usual size on this machine, measured for a few hundredths of a second."""
    images, kernel = tf.ones([32, 32, 32, 64]), tf.ones([3, 3, 64, 64])
    macs = int(np.prod(images.shape)) * int(np.prod(kernel.shape[:2])) * kernel.shape[-1]
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME")).numpy()
        seconds.append(time.perf_counter() - began)
    return macs / min(seconds)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


class Progress(tf.keras.callbacks.Callback):
    """On a terminal and in notebooks a bar with the time left of the whole run; everywhere one line per epoch.

    In a `with` block the bar also disappears when training ends with an error.

    Args:
        epochs: of the whole run.
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
            disable=not (self._console.is_terminal or self._console.is_jupyter),
        )
        self._task = self._bar.add_task("starting", total=epochs, start=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def say(self, text: object) -> None:
        """Prints something above the bar."""
        self._console.print(str(text), markup=False)

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
