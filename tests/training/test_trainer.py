"""The training step: loss, penalty, metrics, and what happens when the loss is not finite."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.training import Stage
from kbnn.training.trainer import NOT_FINITE, Trainer


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
