"""The training step: loss, penalty, metrics, and what happens when the loss is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn import methods
from kbnn.training import Distillation, Stage
from kbnn.training.distillation import divergence
from kbnn.training.trainer import NOT_FINITE, Trainer, cross_entropy, distilled


def linear(regularizer: tf.keras.regularizers.Regularizer | None = None) -> tf.keras.Model:
    inputs = tf.keras.Input((3,))
    return tf.keras.Model(inputs, tf.keras.layers.Dense(4, kernel_regularizer=regularizer)(inputs))


def trainer(network: tf.keras.Model, rate: float = 0.1) -> Trainer:
    result = Trainer(network, Stage(epochs=1))
    result.compile(tf.keras.optimizers.legacy.SGD(rate))
    return result


X = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], np.float32)
Y = np.array([1, 3], np.int32)


def test_one_step_is_that_of_softmax_cross_entropy_and_the_penalty():
    network = linear(tf.keras.regularizers.L2(0.5))
    kernel, bias = (weight.astype(np.float64) for weight in network.get_weights())
    logits = X @ kernel + bias
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = odds / odds.sum(-1, keepdims=True)
    loss = -np.log(probabilities[[0, 1], Y]).mean()
    d_logits = (probabilities - np.eye(4)[Y]) / 2

    figures = trainer(network).train_on_batch(X, Y, return_dict=True)

    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert figures["penalty"] == pytest.approx(0.5 * (kernel**2).sum(), rel=1e-5)
    assert figures["accuracy"] == (logits.argmax(-1) == Y).mean()
    np.testing.assert_allclose(network.get_weights()[0], kernel - 0.1 * (X.T @ d_logits + kernel), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network.get_weights()[1], bias - 0.1 * d_logits.sum(0), rtol=1e-4, atol=1e-6)


def test_metrics_exist_before_the_first_step():
    assert [metric.name for metric in trainer(linear()).metrics] == ["loss", "penalty", "accuracy"]


def test_layers_are_those_of_the_network():
    network = linear()
    assert trainer(network).layers == network.layers


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_loss_that_is_not_finite_changes_no_weight(steps_per_execution: int):
    network = linear()
    training = Trainer(network, Stage(epochs=1))
    training.compile(tf.keras.optimizers.legacy.SGD(0.1), steps_per_execution=steps_per_execution)
    images = np.stack([X, X, np.full_like(X, np.inf), X])
    data = tf.data.Dataset.from_tensor_slices((images, np.stack([Y] * 4)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=NOT_FINITE):
        training.fit(data, verbose=0)
    assert training.optimizer.iterations.numpy() == 2
    assert all(np.isfinite(weight).all() for weight in network.get_weights())


def test_evaluation_reports_the_same_figures():
    network = linear()
    figures = trainer(network).evaluate(X, Y, verbose=0, return_dict=True)
    assert set(figures) == {"loss", "penalty", "accuracy"}


def numbers(classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, classes, 5), *rng.normal(size=(2, 5, classes)).astype(np.float32)


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_label_smoothing_is_cross_entropy_with_a_spread_target():
    labels, logits, _ = numbers()
    target = 0.9 * np.eye(4)[labels] + 0.1 / 4
    np.testing.assert_allclose(
        cross_entropy(tf.constant(labels), logits, 0.1), -(target * log_softmax(logits)).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(
        cross_entropy(tf.constant(labels), logits), -log_softmax(logits)[np.arange(5), labels], rtol=1e-5
    )


def test_a_teacher_has_its_share_of_the_loss():
    _, student, teacher = numbers()
    losses = np.arange(5.0, dtype=np.float32)
    settings = Distillation(teacher="runs/float", share=0.25, temperature=3.0)
    np.testing.assert_allclose(
        distilled(losses, student, teacher, settings), 0.75 * losses + 0.25 * divergence(student, teacher, 3.0)
    )


def test_the_teacher_is_not_trained_and_not_part_of_the_model():
    student, teacher = linear(), linear()
    before = teacher.get_weights()
    stage = Stage(epochs=1, distillation=Distillation(teacher="runs/float", share=1.0))
    training = Trainer(student, stage, teacher)
    training.compile(tf.keras.optimizers.legacy.SGD(0.5))
    losses = [training.train_on_batch(X, Y, return_dict=True)["loss"] for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]
    np.testing.assert_array_equal(before[0], teacher.get_weights()[0])
    assert len(training.variables) - len(training.metrics) * 2 == len(student.variables)
    # It is judged by the labels alone.
    assert training.test_on_batch(X, Y, return_dict=True)["loss"] != pytest.approx(losses[-1], rel=0.1)


@pytest.mark.parametrize("decay_binarized", [False, True])
def test_weight_decay_is_an_l2_penalty_that_leaves_binarized_kernels_out(decay_binarized: bool):
    inputs = tf.keras.Input((4, 4, 2))
    x = methods.get("bnn").convolution(inputs, 3, 3, name="conv")
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    network = tf.keras.Model(inputs, tf.keras.layers.Dense(4)(tf.keras.layers.Flatten()(x)))
    training = Trainer(network, Stage(epochs=1, weight_decay=0.1, decay_binarized=decay_binarized))
    training.compile(tf.keras.optimizers.legacy.SGD(0.0))
    decayed = [weight for weight in network.trainable_weights if decay_binarized or "conv" not in weight.name]
    assert len(decayed) == 4 + decay_binarized
    expected = 0.05 * sum((weight.numpy() ** 2).sum() for weight in decayed)
    figures = training.train_on_batch(np.ones((2, 4, 4, 2), np.float32), Y, return_dict=True)
    assert figures["penalty"] == pytest.approx(expected, rel=1e-5)
