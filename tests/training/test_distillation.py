"""A teacher in one's own `compile` and `fit`."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.training import Distiller
from kbnn.training.distillation import divergence

LOSS = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IMAGES = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 1, 3, 2])


def linear(classes: int = 4, penalty: float = 0.0) -> tf.keras.Model:
    inputs = tf.keras.Input((3,))
    regularizer = tf.keras.regularizers.L2(penalty)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(classes, kernel_regularizer=regularizer, name="logits")(inputs))


def softmax(z: np.ndarray) -> np.ndarray:
    odds = np.exp(z.astype(np.float64) - z.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def test_the_divergence_of_softened_outputs():
    student, teacher = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    expected, received = softmax(teacher / 3), softmax(student / 3)
    kl = (expected * np.log(expected / received)).sum(-1)
    np.testing.assert_allclose(divergence(student, teacher, 3.0), 9 * kl, rtol=1e-5)
    np.testing.assert_allclose(divergence(teacher, teacher, 3.0), 0, atol=1e-6)


def test_a_step_follows_labels_teacher_and_penalty():
    """Against the gradients: of cross-entropy softmax(z) - label, of T²·KL T·(softmax(z/T) - softmax(t/T))."""
    student, teacher, share, temperature = linear(penalty=0.25), linear(), 0.25, 3.0
    # Half of the penalty belongs to the layer, half to the model.
    student.add_loss(lambda: 0.25 * tf.reduce_sum(student.get_layer("logits").kernel ** 2))
    kernel, bias = (weight.astype(np.float64) for weight in student.get_weights())
    kept = teacher.get_weights()
    logits, targets = IMAGES @ kernel + bias, teacher(IMAGES).numpy()
    own = softmax(logits) - np.eye(4)[LABELS]
    taught = temperature * (softmax(logits / temperature) - softmax(targets / temperature))
    gradient = ((1 - share) * own + share * taught) / 4

    model = Distiller(student, teacher, share, temperature)
    model.compile(tf.keras.optimizers.SGD(0.1), LOSS, ["accuracy"])
    figures = model.train_on_batch(IMAGES, LABELS, return_dict=True)

    np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * (IMAGES.T @ gradient + kernel), atol=1e-6)
    np.testing.assert_allclose(student.get_weights()[1], bias - 0.1 * gradient.sum(0), atol=1e-6)
    np.testing.assert_array_equal(teacher.get_weights()[0], kept[0])
    cross_entropy = -np.log(softmax(logits)[np.arange(4), LABELS]).mean()
    assert figures["loss"] == pytest.approx(cross_entropy + 0.5 * (kernel**2).sum(), rel=1e-5)
    assert figures["accuracy"] == (logits.argmax(-1) == LABELS).mean()
    assert [weight.ref() for weight in model.weights] == [weight.ref() for weight in student.weights]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distiller(linear(), linear(), share=0.0), r"received share=0\.0"),
        (lambda: Distiller(linear(), linear(), temperature=-1.0), r"temperature=-1\.0"),
        (lambda: Distiller(linear(), linear(5)), "received 5 classes, the student has 4"),
        (lambda: Distiller(tf.keras.Sequential([tf.keras.layers.Dense(4)]), linear()), "subclassed or not built"),
    ],
)
def test_what_does_not_fit(make, message: str):
    with pytest.raises(UsageError, match=message):
        make()
