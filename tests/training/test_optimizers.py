"""Learning rates and optimizers of stages."""

import math

import numpy as np
import pytest
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.training import Stage
from kbnn.training.optimizers import LearningRate, optimizer


def rates(steps_per_epoch: int = 10, **settings: object) -> np.ndarray:
    stage = Stage(learning_rate=0.5, **settings)
    rate = LearningRate.of(stage, steps_per_epoch)
    return np.array([float(rate(tf.constant(step, tf.int64))) for step in range(stage.epochs * steps_per_epoch + 1)])


def test_constant():
    np.testing.assert_array_equal(rates(epochs=2, schedule="constant"), 0.5)


def test_cosine_falls_to_zero():
    expected = [0.25 * (1 + math.cos(math.pi * step / 40)) for step in range(41)]
    np.testing.assert_allclose(rates(epochs=4, schedule="cosine"), expected, atol=1e-7)


def test_linear_falls_to_zero():
    np.testing.assert_allclose(rates(epochs=4, schedule="linear"), 0.5 * (1 - np.arange(41) / 40), atol=1e-7)


def test_steps_fall_at_their_epochs():
    received = rates(epochs=4, schedule="steps", boundaries=(1, 3), factor=0.1)
    np.testing.assert_allclose(received, [0.5] * 10 + [0.05] * 20 + [0.005] * 11, rtol=1e-6)


def test_warmup_rises_linearly_and_the_rest_takes_the_time_that_is_left():
    received = rates(epochs=4, schedule="cosine", warmup=1)
    np.testing.assert_allclose(received[:10], 0.05 * np.arange(1, 11), rtol=1e-6)
    expected = [0.25 * (1 + math.cos(math.pi * step / 30)) for step in range(31)]
    np.testing.assert_allclose(received[10:], expected, atol=1e-7)


def test_learning_rate_config_round_trip():
    rate = LearningRate.of(Stage(epochs=4, schedule="steps", boundaries=(1, 3), warmup=1), 10)
    again = LearningRate.from_config(rate.get_config())
    for step in (0, 5, 15, 35):
        assert float(again(step)) == float(rate(step))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "cosin"}, "unknown shape of LearningRate: received 'cosin'; did you mean cosine?"),
        ({"highest": -0.1}, "received highest=-0.1, steps=10, warmup=0, factor=0.1; choose highest > 0"),
        ({"highest": float("nan")}, "received highest=nan"),
        ({"steps": 0}, "steps=0"),
        ({"factor": 0.0}, "factor=0.0"),
    ],
)
def test_learning_rates_that_cannot_be(changes: dict[str, object], message: str):
    with pytest.raises(UsageError) as caught:
        LearningRate(**{"highest": 0.1, "shape": "cosine", "steps": 10, **changes})
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_optimizers_update_as_their_formulas(name: str):
    stage = Stage(epochs=1, optimizer=name, learning_rate=0.1, momentum=0.9, schedule="constant")
    chosen = optimizer(stage, 1)
    weight = tf.Variable([1.0, -2.0])
    w, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t in range(1, 4):
        gradient = np.array([0.5, -0.25]) * t
        chosen.apply_gradients([(tf.constant(gradient, tf.float32), weight)])
        if name == "sgd":
            m = 0.9 * m - 0.1 * gradient
            w = w + m
        else:
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    np.testing.assert_allclose(weight.numpy(), w, rtol=1e-5)
