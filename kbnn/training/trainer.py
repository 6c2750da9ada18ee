"""A network under training: the same layers and variables, with the loss, metrics and checks of a stage."""

from typing import Any

import tensorflow as tf

from kbnn.regularizers import binarized_kernels
from kbnn.training.distillation import divergence
from kbnn.training.recipe import Distillation, Stage

NOT_FINITE = "the loss is not finite"


class Trainer(tf.keras.Model):
    """Trains a network that returns logits, through Keras's own `fit`.

    Loss: softmax cross-entropy with the stage's label smoothing and teacher, what the layers add (`network.losses`),
    and weight decay λ/2·Σw² on all trained weights but binarized kernels. A loss that is not finite raises
    `tf.errors.InvalidArgumentError` before it changes a weight.

    Metrics, of the epoch so far: `loss` is what is asked of the outputs, `penalty` what is asked of the weights,
    `accuracy` top-1; in evaluation, `loss` is the plain cross-entropy. They exist from the start, so that a
    checkpoint in the middle of an epoch holds them.
    """

    def __init__(self, network: tf.keras.Model, stage: Stage, teacher: tf.keras.Model | None = None) -> None:
        super().__init__(network.inputs, network.outputs[0], name=network.name)
        self._stage = stage
        # Behind a function, so that Keras takes it for no part of this model.
        self._teach = None if teacher is None else lambda images: teacher(images, training=False)
        self._not_decayed = set() if stage.decay_binarized else {id(kernel) for kernel in binarized_kernels(network)}
        self._loss = tf.keras.metrics.Mean(name="loss")
        self._penalty = tf.keras.metrics.Mean(name="penalty")
        self._accuracy = tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [self._loss, self._penalty, self._accuracy]

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> tf.Tensor:
        logits = tf.cast(y_pred, tf.float32)
        losses = cross_entropy(y, logits, self._stage.label_smoothing)
        if self._teach is not None and self._stage.distillation is not None:
            losses = distilled(losses, logits, self._teach(x), self._stage.distillation)
        penalty = self._penalties()
        self._measure(losses, penalty, y, logits)
        # Keras adds up the gradients of replicas.
        return _checked(tf.reduce_mean(losses) + penalty) / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> dict[str, tf.Tensor]:
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = data
        logits = tf.cast(self(images, training=False), tf.float32)
        self._measure(cross_entropy(labels, logits), self._penalties(), labels, logits)
        return self.compute_metrics(images, labels, logits, None)

    def _measure(self, losses: tf.Tensor, penalty: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> None:
        self._loss.update_state(losses)
        self._penalty.update_state(penalty)
        self._accuracy.update_state(labels, logits)

    def _penalties(self) -> tf.Tensor:
        terms = [tf.cast(loss, tf.float32) for loss in self.losses]
        if self._stage.weight_decay:
            decayed = [weight for weight in self.trainable_variables if id(weight) not in self._not_decayed]
            terms += [self._stage.weight_decay * tf.nn.l2_loss(tf.cast(weight, tf.float32)) for weight in decayed]
        return tf.add_n(terms) if terms else tf.constant(0.0)


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """-Σ q·log softmax(z) per image, q = (1 - ε)·[label] + ε/K over K classes."""
    if not smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    classes = logits.shape[-1]
    targets = tf.one_hot(labels, classes, 1 - smoothing + smoothing / classes, smoothing / classes)
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def distilled(losses: tf.Tensor, student: tf.Tensor, teacher: tf.Tensor, settings: Distillation) -> tf.Tensor:
    """(1 - share)·losses + share·divergence per image."""
    return (1 - settings.share) * losses + settings.share * divergence(student, teacher, settings.temperature)


@tf.custom_gradient
def _checked(loss: tf.Tensor) -> tf.Tensor:
    """The loss; its gradient waits until the loss is known to be finite."""
    finite = tf.debugging.check_numerics(loss, NOT_FINITE)

    def gradient(dy: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([finite]):
            return tf.identity(dy)

    return finite, gradient
