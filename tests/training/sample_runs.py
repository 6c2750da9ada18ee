"""A network and a recipe that train in a second, and helpers for tests of runs."""

import os
import signal
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kbnn.methods import Method
from kbnn.training import Recipe, Run


def recipe(**changes: object) -> Recipe:
    """Digits, 3 epochs of 5 steps, two steps per execution."""
    small = Recipe.of("tiny", "bireal", "digits", epochs=3, batch=256)
    return small.changed({"steps_per_execution": 2, **changes})


def network(
    _: str, method: Method, *, input_shape: tuple[int, int, int], classes: int, width: float = 1.0, **__: object
) -> tf.keras.Model:
    """Of any method, with one binary layer, batch normalization and dropout.

    `width`, an option of the network that it replaces, scales the rate of the dropout.
    """
    inputs = tf.keras.Input(input_shape, name="image")
    x = method.convolution(inputs, 8, 3, strides=2, name="conv")
    x = tf.keras.layers.BatchNormalization(momentum=0.9, name="bn")(x)
    x = tf.keras.layers.Dropout(0.2 * width, name="dropout")(tf.keras.layers.Flatten(name="flatten")(x))
    return tf.keras.Model(inputs, tf.keras.layers.Dense(classes, name="logits")(x))


class AtStep(tf.keras.callbacks.Callback):
    """Runs an action once, after the given number of steps of the stage."""

    def __init__(self, step: int, action: Callable[["AtStep"], object]) -> None:
        super().__init__()
        self.step: int | None = step
        self.action = action

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self.step is not None and int(self.model.optimizer.iterations) >= self.step:
            self.step = None
            self.action(self)


def send(number: signal.Signals) -> Callable[[object], None]:
    """Sends this process a signal."""
    return lambda _: os.kill(os.getpid(), number)


class PowerCutError(BaseException):
    """Ends a run without a chance to save."""


def cut(_: object) -> None:
    raise PowerCutError


def assert_equal(run: Run, other: Run) -> None:
    """Histories and weights are equal bit for bit."""
    assert run.history() == other.history()
    for mine, theirs in zip(run.model().get_weights(), other.model().get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
