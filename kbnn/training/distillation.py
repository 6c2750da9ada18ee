"""A teacher's softened outputs as a second target (Hinton et al. 2015)."""

from typing import Any

import tensorflow as tf

from kbnn.errors import UsageError


def divergence(student: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
    """T²·KL(softmax(teacher/T), softmax(student/T)) per image, of logits `(B, classes)`."""
    expected = tf.nn.log_softmax(tf.cast(teacher, tf.float32) / temperature)
    received = tf.nn.log_softmax(tf.cast(student, tf.float32) / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(expected) * (expected - received), -1)


class Distiller(tf.keras.Model):
    """A student that learns from a teacher, too, in your own `compile` and `fit`.

    Loss: (1 - share)·L + share·T²·KL(softmax(teacher/T), softmax(student/T)) + penalties, where L is the loss that it
    is compiled with. Layers and weights are the student's own: the student is what to save. The teacher is not
    trained. In the logs, and in evaluation, `loss` is L with penalties; sample weights weigh L alone.

    Args:
        student: a functional or sequential model that returns logits.
        teacher: a model that takes the same images and returns logits of the same classes.
        share: of the teacher in the loss, in (0, 1].
        temperature: T, positive.

    Raises:
        UsageError: the teacher does not fit the student, or a share or a temperature is out of range.

    Example:
        >>> taught = kbnn.training.Distiller(student, teacher, share=0.5, temperature=4.0)
        >>> taught.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
        >>> taught.fit(images, labels, epochs=10)
        >>> student.save("student.keras")

    Source: Hinton et al., Distilling the knowledge in a neural network, 2015, section 2.
    """

    def __init__(
        self, student: tf.keras.Model, teacher: tf.keras.Model, share: float = 0.5, temperature: float = 1.0
    ) -> None:
        if not (0 < share <= 1 and temperature > 0):
            raise UsageError(
                f"Distiller: received share={share}, temperature={temperature}; choose 0 < share <= 1, temperature > 0"
            )
        _check_fits(student, teacher)
        super().__init__(student.inputs, student.outputs[0], name=student.name)
        # Behind functions, so that Keras takes them for no part of this model.
        self._teach = lambda images: teacher(images, training=False)
        self._penalties = lambda: student.losses
        self._share = share
        self._temperature = temperature

    @property
    def losses(self) -> list[tf.Tensor]:
        """The student's, those included that were added to it as a model."""
        penalties: list[tf.Tensor] = self._penalties()
        return penalties

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> tf.Tensor:
        # Keras adds up the gradients of replicas.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        penalties = tf.add_n([tf.cast(loss, tf.float32) for loss in [0.0, *self.losses]]) / replicas
        own = super().compute_loss(x, y, y_pred, sample_weight) - penalties
        taught = tf.reduce_mean(divergence(y_pred, self._teach(x), self._temperature)) / replicas
        return (1 - self._share) * own + self._share * taught + penalties


def _check_fits(student: tf.keras.Model, teacher: tf.keras.Model) -> None:
    if not student.inputs:
        raise UsageError(f"Distiller: student '{student.name}' is subclassed or not built: give a functional model")
    if student.output_shape[-1] != teacher.output_shape[-1]:
        raise UsageError(
            f"Distiller: the teacher does not fit: received {teacher.output_shape[-1]} classes, the student has "
            f"{student.output_shape[-1]}"
        )
