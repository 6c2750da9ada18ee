"""A network under training: the same layers and variables, with the loss, metrics and checks of a stage."""

from typing import Any

import tensorflow as tf

from kbnn.training.recipe import Stage

NOT_FINITE = "the loss is not finite"


class Trainer(tf.keras.Model):
    """Trains a network that returns logits, through Keras's own `fit`.

    Loss: softmax cross-entropy, and what the layers add (`network.losses`). A loss that is not finite raises
    `tf.errors.InvalidArgumentError` before it changes a weight.

    Metrics, of the epoch so far: `loss` is the cross-entropy, `penalty` what the layers add, `accuracy` top-1. They
    exist from the start, so that a checkpoint in the middle of an epoch holds them.
    """

    def __init__(self, network: tf.keras.Model, stage: Stage) -> None:
        super().__init__(network.inputs, network.outputs[0], name=network.name)
        self._stage = stage
        self._loss = tf.keras.metrics.Mean(name="loss")
        self._penalty = tf.keras.metrics.Mean(name="penalty")
        self._accuracy = tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [self._loss, self._penalty, self._accuracy]

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> tf.Tensor:
        logits = tf.cast(y_pred, tf.float32)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        penalty = tf.add_n([tf.cast(loss, tf.float32) for loss in self.losses]) if self.losses else tf.constant(0.0)
        self._loss.update_state(losses)
        self._penalty.update_state(penalty)
        self._accuracy.update_state(y, logits)
        total = _checked(tf.reduce_mean(losses) + penalty)
        # Keras adds the gradients of replicas.
        return total / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> dict[str, tf.Tensor]:
        return {metric.name: metric.result() for metric in self.metrics}


@tf.custom_gradient
def _checked(loss: tf.Tensor) -> tf.Tensor:
    """The loss; its gradient waits until the loss is known to be finite."""
    finite = tf.debugging.check_numerics(loss, NOT_FINITE)

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([finite]):
            return tf.identity(dy)

    return finite, gradient
