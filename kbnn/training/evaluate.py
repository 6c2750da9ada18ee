"""Accuracy on the held-out test set."""

from dataclasses import dataclass

import tensorflow as tf

from kbnn.datasets import Dataset
from kbnn.errors import UsageError
from kbnn.precision import in_float32


@dataclass(frozen=True)
class Evaluation:
    """Top-1 accuracy and mean cross-entropy (nats) over a test set."""

    dataset: str
    samples: int
    top1: float
    loss: float

    def __str__(self) -> str:
        return f"{self.dataset} test: top-1 {self.top1:.2%} of {self.samples} images, loss {self.loss:.4f}"


def evaluate(model: tf.keras.Model, data: Dataset, batch: int = 500) -> Evaluation:
    """Evaluates a model that returns logits on the test split, in float32: that is what is deployed.

    A model that was trained under mixed precision is rebuilt for it, with the same weights.

    Raises:
        UsageError: the model's input or its number of classes is not the data set's.
        KbnnError: a subclassed model computes in another type, so that it cannot be rebuilt.
    """
    if model.input_shape[1:] != data.input_shape or model.output_shape[-1] != len(data.classes):
        raise UsageError(
            f"the model does not fit data set '{data.name}': received input {model.input_shape[1:]} and "
            f"{model.output_shape[-1]} classes, the data has {data.input_shape} and {len(data.classes)}"
        )
    deployed = in_float32(model)

    @tf.function
    def judge(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = deployed(images, training=False)
        losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return tf.reduce_sum(losses), tf.math.count_nonzero(tf.argmax(logits, -1, labels.dtype) == labels)

    # Traced once for batches of any size.
    specs = tf.TensorSpec([None, *data.input_shape], tf.float32), tf.TensorSpec([None], tf.int32)
    traced = judge.get_concrete_function(*specs)
    loss, correct = 0.0, 0
    for images, labels in data.batches(data.test, batch):
        losses, hits = traced(images, labels)
        loss, correct = loss + float(losses), correct + int(hits)
    size = data.test.size
    return Evaluation(data.name, size, correct / size, loss / size)
