"""Naming the layer that NaN came from."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.errors import KbnnError
from kbnn.training.divergence import TerminateOnDivergence, first_non_finite


@pytest.fixture
def network() -> tf.keras.Model:
    inputs = tf.keras.Input((3,))
    x = tf.keras.layers.Dense(4, name="first")(inputs)
    x = tf.keras.layers.Lambda(tf.math.log, name="logarithm")(tf.keras.layers.ReLU(name="relu")(x))
    x = tf.keras.layers.Dense(4, name="second", kernel_regularizer=tf.keras.regularizers.L2(1e30))(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(2, name="third")(x))


def weigh(network: tf.keras.Model, name: str, value: float) -> None:
    layer = network.get_layer(name)
    layer.set_weights([np.full_like(weight, value) for weight in layer.get_weights()])


def test_the_first_output(network: tf.keras.Model):
    weigh(network, "first", -1.0)
    assert first_non_finite(network, tf.ones([2, 3])) == "layer 'logarithm' is the first whose output is not finite"


def test_the_last_weights_since_gradients_flow_down(network: tf.keras.Model):
    for name in ("first", "second"):
        weigh(network, name, np.nan)
    assert first_non_finite(network, tf.ones([2, 3])) == "the weights of layer 'second' are not finite"


def test_a_penalty(network: tf.keras.Model):
    weigh(network, "first", 1.0)
    weigh(network, "second", 1e10)
    weigh(network, "third", 1.0)
    assert first_non_finite(network, tf.ones([2, 3])) == "the penalty of layer 'second' is not finite"


def test_large_logits(network: tf.keras.Model):
    for name in ("first", "second"):
        weigh(network, name, 1e-3)
    weigh(network, "third", 2e8)
    assert first_non_finite(network, tf.ones([2, 3])).startswith("all layers are finite, the logits reach ")


def fit_until_it_diverges(model: tf.keras.Model, y: np.ndarray) -> str:
    """The error, after which the weights are as they were."""
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(KbnnError) as caught:
        model.fit(np.ones((8, 3)), y, batch_size=2, verbose=0, shuffle=False, callbacks=[TerminateOnDivergence()])
    for weight, after in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)
    return str(caught.value)


def test_a_fit_of_ones_own_ends_where_gradients_are_lost():
    inputs = tf.keras.Input((3,))
    x = tf.keras.layers.Dense(4, name="first")(inputs)
    # At 0 it has no gradient.
    x = tf.keras.layers.Lambda(lambda x: tf.sqrt(tf.abs(x - x)), name="root")(x)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2, name="second")(x))
    assert fit_until_it_diverges(model, np.ones((8, 2))).startswith(
        "training diverged in step 1 of epoch 1: the weights of layer 'first' are not finite; the weights are again "
    )


def test_a_fit_of_ones_own_ends_when_everything_is_lost():
    labels = np.ones((8, 2))
    labels[4] = np.nan
    model = tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,)), tf.keras.layers.Dense(2)])
    assert fit_until_it_diverges(model, labels).startswith(
        "training diverged in step 3 of epoch 1: the loss is not finite, and no layer's weights are any more; "
    )
