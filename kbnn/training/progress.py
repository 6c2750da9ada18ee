"""Progress of a training on stderr: what is trained on which data, and how far it is."""

import html
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import rich.console
import rich.progress
import tensorflow as tf

from kbnn import accounting, structure, tables
from kbnn.datasets import Dataset
from kbnn.errors import KbnnError
from kbnn.native_output import lossy
from kbnn.printable import printable
from kbnn.training.networks import options_of
from kbnn.training.recipe import Recipe

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")
# A training step has about three times the multiplications of an inference, and takes about twice as long as those.
_TRAINING_FACTOR = 6
_SHOWN_CLASSES = 8
_SECONDS_BETWEEN_UPDATES = 0.2
# Up to this side, CIFAR's, a network may work on all pixels.
_LARGEST_UNREDUCED = 32
# From this side on, the smallest in ImageNet's recipes, networks with a choice of stems first reduce the image.
_SIDE_WITH_STEM = 128


@dataclass(frozen=True)
class TrainingPlan(tables.Shown):
    """The data, the network and the schedule of a run, and how long an epoch is expected to take.

    `seconds` is estimated from the speed of a convolution on this machine; None if the network's multiplications cannot
    be counted.
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
    advice: str = ""

    @staticmethod
    def of(recipe: Recipe, data: Dataset, network: tf.keras.Model, batch: int) -> "TrainingPlan":
        """The plan of training a network with a recipe."""
        binary: int | None
        real: int | None
        seconds: float | None
        try:
            cost = accounting.count(network)
            binary, real = int(cost.binary_macs), int(cost.real_macs)
            seconds = _TRAINING_FACTOR * data.train.size * (cost.binary_macs + cost.real_macs) / macs_per_second()
        except KbnnError:
            binary, real, seconds = None, None, None
        return TrainingPlan(
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
            _advice(recipe, network),
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
        if self.advice:
            lines.append(f"advice   {self.advice}")
        return "\n".join(lines)

    def _macs(self) -> str:
        if self.binary_macs is None or self.real_macs is None:
            return ""
        return f", {self.binary_macs / 1e6:,.1f} M binary and {self.real_macs / 1e6:,.1f} M real MACs"


def _advice(recipe: Recipe, network: tf.keras.Model) -> str:
    """How to save multiplications if the stem does not reduce a large image."""
    side = network.input_shape[1]
    layers = structure.binary_layers(network)
    if not layers or side is None or side <= _LARGEST_UNREDUCED:
        return ""
    shape = layers[0].input_shape
    if len(shape) != 4 or shape[1] != side:
        return ""
    told = f"the first binary layers work on {side}x{side} maps"
    if "stem" in options_of(recipe.model.name):
        larger = max(2 * side, _SIDE_WITH_STEM)
        share = (larger / 4 / side) ** 2
        return (
            f"{told}: at {larger}x{larger} the stem reduces the image first, at {share:.2g} times the cost; "
            f"at {side}x{side}, model.options.stem='imagenet' does at 1/16"
        )
    usual = _LARGEST_UNREDUCED
    return f"{told}: at {usual}x{usual} they cost {(side / usual) ** 2:.1f} times less"


def macs_per_second() -> float:
    """The speed of a typical convolution on this machine, measured for a few hundredths of a second."""
    images, kernel = tf.ones([32, 32, 32, 64]), tf.ones([3, 3, 64, 64])
    macs = int(np.prod(images.shape)) * int(np.prod(kernel.shape[:2])) * kernel.shape[-1]
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME")).numpy()
        seconds.append(time.perf_counter() - began)
    return macs / min(seconds)


def _duration(seconds: float) -> str:
    if seconds < 1.5:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


class Progress(tf.keras.callbacks.Callback):
    """Prints one line per epoch, and on terminals and in notebooks shows a bar with the remaining time of the run.

    In a `with` block, the bar also disappears if training ends with an error.

    Args:
        epochs: number of epochs of the whole run.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        self._display: _Terminal | _Notebook = (
            _Notebook(epochs) if rich.console.Console().is_jupyter else _Terminal(epochs)
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._display.stop()

    def say(self, text: object) -> None:
        """Prints a message above the bar."""
        self._display.say(str(text))

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._display.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()
        self._epoch = epoch
        self._display.move(epoch, epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._display.move(self._epoch + (batch + 1) / self.params["steps"], self._epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seconds = time.monotonic() - self._began
        figures = "  ".join(f"{name} {logs[name]:.4f}" for name in _FIGURES if logs and name in logs)
        self.say(f"epoch {epoch + 1}/{self.epochs}  {figures}  {seconds:.1f} s")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._display.stop()


class _Terminal:
    """Lines and a bar on stderr; only lines if it is not a terminal."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._console = rich.console.Console(file=lossy(sys.stderr), highlight=False, soft_wrap=True)
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

    def start(self) -> None:
        self._bar.start()

    def move(self, completed: float, epoch: int) -> None:
        self._bar.start_task(self._task)
        self._bar.update(self._task, completed=completed, description=f"epoch {epoch + 1}/{self._epochs}")

    def say(self, text: str) -> None:
        self._console.print(printable(text, lines=True), markup=False)

    def stop(self) -> None:
        self._bar.stop()


class _Notebook:
    """Lines and a bar in one output of a notebook cell, without widgets."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._lines: list[str] = []
        self._bar = ""
        self._handle: DisplayHandle | None = None
        self._shown = 0.0

    def start(self) -> None:
        self._began = time.monotonic()
        self._first: float | None = None

    def move(self, completed: float, epoch: int) -> None:
        now = time.monotonic()
        self._first = completed if self._first is None else self._first
        done = completed - self._first
        left = f", {_duration((now - self._began) / done * (self._epochs - completed))} left" if done else ""
        self._bar = (
            f'<progress max="{self._epochs}" value="{completed:.3f}" style="width: 50%"></progress> '
            f"epoch {epoch + 1}/{self._epochs}{left}"
        )
        if now - self._shown > _SECONDS_BETWEEN_UPDATES:
            self._show()

    def say(self, text: str) -> None:
        self._lines.append(text)
        self._show()

    def stop(self) -> None:
        if self._bar:
            self._bar = ""
            self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        self._shown = time.monotonic()
        text = "\n".join(map(html.escape, self._lines))
        content = HTML(f'<pre style="white-space: pre-wrap; margin: 0">{text}</pre>{self._bar}')
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)
