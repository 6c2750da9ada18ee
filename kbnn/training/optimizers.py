"""A stage's optimizer and learning-rate schedule."""

import tensorflow as tf

from kbnn.training.recipe import Stage


def optimizer(stage: Stage, steps: int) -> tf.keras.optimizers.Optimizer:
    """The stage's optimizer; `steps` is the number of steps in an epoch.

    tf-keras's legacy optimizers: the same updates as the newer ones in less time on CPU.
    """
    rate = learning_rate(stage, steps)
    if stage.optimizer == "sgd":
        return tf.keras.optimizers.legacy.SGD(rate, momentum=stage.momentum)
    return tf.keras.optimizers.legacy.Adam(rate)


def learning_rate(stage: Stage, steps: int) -> float | tf.keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate, a function of the step."""
    if stage.schedule == "cosine":
        return tf.keras.optimizers.schedules.CosineDecay(stage.learning_rate, stage.epochs * steps)
    return stage.learning_rate
