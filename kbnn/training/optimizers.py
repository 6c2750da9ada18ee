"""A stage's optimizer and learning-rate schedule."""

import math

import tensorflow as tf

from kbnn._keras import Config
from kbnn.errors import UsageError, unknown
from kbnn.training.recipe import Stage

_SHAPES = ("constant", "cosine", "linear", "steps")


def optimizer(stage: Stage, steps: int) -> tf.keras.optimizers.Optimizer:
    """The stage's optimizer; `steps` is the number of steps in an epoch.

    Uses tf-keras's legacy optimizers, which make the same updates as the newer ones in less time on a CPU.
    """
    rate = LearningRate.of(stage, steps)
    if stage.optimizer == "sgd":
        return tf.keras.optimizers.legacy.SGD(rate, momentum=stage.momentum)
    return tf.keras.optimizers.legacy.Adam(rate)


@tf.keras.utils.register_keras_serializable(package="kbnn")
class LearningRate(tf.keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that optionally warms up and then decays.

    In step s, with w steps of warm-up and progress p = (s - w)/(steps - w):
    highest·(s + 1)/w while s < w, then highest·f(p) with f = 1 ("constant"), (1 + cos πp)/2 ("cosine"), 1 - p
    ("linear"), or `factor` to the number of boundaries that s has reached ("steps").

    Args:
        highest: learning rate before it decays.
        shape: "constant", "cosine", "linear" or "steps".
        steps: length of the whole schedule.
        warmup: steps of warm-up.
        boundaries: steps, for "steps".
        factor: for "steps".

    Raises:
        UsageError: an unknown shape, or a number out of range.
    """

    def __init__(
        self,
        highest: float,
        shape: str,
        steps: int,
        warmup: int = 0,
        boundaries: tuple[int, ...] = (),
        factor: float = 0.1,
    ) -> None:
        super().__init__()
        if shape not in _SHAPES:
            raise unknown("shape of LearningRate", shape, _SHAPES)
        if not (0 < highest < math.inf and steps >= 1 and warmup >= 0 and factor > 0):
            raise UsageError(
                f"LearningRate: received highest={highest}, steps={steps}, warmup={warmup}, factor={factor}; choose "
                f"highest > 0, steps >= 1, warmup >= 0, factor > 0"
            )
        self.highest = highest
        self.shape = shape
        self.steps = steps
        self.warmup = warmup
        self.boundaries = tuple(boundaries)
        self.factor = factor

    @staticmethod
    def of(stage: Stage, steps: int) -> "LearningRate":
        """A stage's schedule; `steps` is the number of steps in an epoch."""
        boundaries = tuple(steps * epoch for epoch in stage.boundaries)
        return LearningRate(
            stage.learning_rate, stage.schedule, steps * stage.epochs, steps * stage.warmup, boundaries, stage.factor
        )

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        rate = self.highest * self._share(step)
        if not self.warmup:
            return rate
        return tf.where(step < self.warmup, self.highest * (step + 1) / self.warmup, rate)

    def _share(self, step: tf.Tensor) -> tf.Tensor:
        progress = tf.clip_by_value((step - self.warmup) / max(self.steps - self.warmup, 1), 0.0, 1.0)
        if self.shape == "cosine":
            return (1 + tf.cos(math.pi * progress)) / 2
        if self.shape == "linear":
            return 1 - progress
        if self.shape == "steps":
            reached = tf.reduce_sum(tf.cast(step >= tf.constant(self.boundaries, tf.float32), tf.float32))
            return self.factor**reached
        return tf.ones_like(progress)

    def get_config(self) -> Config:
        return {
            "highest": self.highest,
            "shape": self.shape,
            "steps": self.steps,
            "warmup": self.warmup,
            "boundaries": self.boundaries,
            "factor": self.factor,
        }
