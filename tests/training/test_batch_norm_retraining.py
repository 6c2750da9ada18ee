"""Retraining batch normalization with frozen ±1 kernels."""

from collections.abc import Callable

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, quantizers, structure
from kbnn.accounting import count
from kbnn.errors import UsageError
from kbnn.training import BatchNormRetraining

X = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype(np.float32)
Y = np.arange(8) % 4


def model(kernel_quantizer: str | tf.keras.layers.Layer) -> tf.keras.Model:
    inputs = tf.keras.Input((4, 4, 2))
    x = tf.keras.layers.Conv2D(4, 3, name="stem")(inputs)
    conv = layers.BinaryConv2D(4, 3, input_quantizer="ste_sign", kernel_quantizer=kernel_quantizer, name="conv")
    x = tf.keras.layers.BatchNormalization(name="bn")(conv(x))
    built = tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(x))
    built.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


@pytest.mark.parametrize(
    "normalization",
    [
        tf.keras.layers.BatchNormalization,
        lambda: tf.keras.layers.BatchNormalization(synchronized=True),
        tf.keras.layers.experimental.SyncBatchNormalization,
        tf.compat.v1.keras.layers.BatchNormalization,
    ],
    ids=["plain", "synchronized", "former synchronized", "version 1"],
)
def test_every_batch_normalization_stays_trainable(normalization: Callable[[], tf.keras.layers.Layer]):
    layer = normalization()
    network = tf.keras.Sequential([tf.keras.Input((4, 4, 2)), tf.keras.layers.Conv2D(4, 3, name="stem"), layer])
    network.compile("sgd", "mse")
    callback = BatchNormRetraining()
    callback.set_model(network)
    callback.on_train_begin()
    assert [part.trainable for part in network.layers] == [False, True]
    assert count(network).real_parameters == 2 * 3 * 3 * 4 + 4 + 2 * 4
    callback.on_train_end()
    assert [part.trainable for part in network.layers] == [True, True]


def weights(network: tf.keras.Model, name: str) -> list[np.ndarray]:
    return [weight.copy() for weight in network.get_layer(name).get_weights()]


@pytest.mark.slow
def test_only_batch_normalization_learns():
    network = model(quantizers.MagnitudeAwareSign())
    network.fit(X, Y, epochs=1, verbose=0)
    kernel, stem, norm = weights(network, "conv")[0], weights(network, "stem"), weights(network, "bn")

    network.fit(X, Y, epochs=3, verbose=0, callbacks=[BatchNormRetraining()])

    np.testing.assert_array_equal(weights(network, "conv")[0], np.where(kernel >= 0, 1.0, -1.0))
    for before, after in zip(stem, weights(network, "stem"), strict=True):
        np.testing.assert_array_equal(before, after)
    assert all((before != after).any() for before, after in zip(norm, weights(network, "bn"), strict=True))

    network.fit(X, Y, epochs=1, verbose=0)
    assert (weights(network, "stem")[0] != stem[0]).any()


@pytest.mark.slow
def test_a_quantizer_that_changes_the_kernels_is_refused():
    network = model(quantizers.HalfHalf("identity"))
    # Half-half marks half of a filter even if all magnitudes are equal, so a filter of ones changes.
    network.get_layer("conv").latent_kernel.assign(tf.random.stateless_normal([3, 3, 4, 4], [1, 2]))
    with pytest.raises(UsageError, match="layer 'conv' cannot keep ±1 kernels: its HalfHalf maps them to other signs"):
        network.fit(X, Y, verbose=0, callbacks=[BatchNormRetraining()])


def nested_network() -> tf.keras.Model:
    """kbnn's and Larq's layers in a nested model, and a composite layer with a batch normalization."""
    inputs = tf.keras.Input((6, 6, 2))
    x = lq.layers.QuantConv2D(
        4, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip", use_bias=False, name="first"
    )(inputs)
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    x = layers.BinaryConv2D(4, 3, input_quantizer="approx_sign", kernel_quantizer="magnitude_aware", name="conv")(x)
    inner = tf.keras.Model(inputs, layers.GroupAwareNormalization(2, name="norm")(x), name="inner")
    frozen = tf.keras.layers.Dense(4, trainable=False, name="frozen")
    built = tf.keras.Sequential([inputs, inner, tf.keras.layers.GlobalAveragePooling2D(), frozen])
    built.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


@pytest.mark.slow
def test_nested_models_and_larqs_layers():
    network, x = nested_network(), np.random.default_rng(1).normal(size=(8, 6, 6, 2)).astype(np.float32)
    inner = network.get_layer("inner")
    found = {layer.name: layer for layer in structure.layers(network)}
    trainable = {layer: layer.trainable for layer in structure.layers(network)}
    signs = {name: np.where(structure.latent_kernel(found[name]) >= 0, 1.0, -1.0) for name in ("first", "conv")}
    before = {weight.name: weight.numpy() for weight in inner.weights}

    network.fit(x, Y, epochs=2, verbose=0, callbacks=[BatchNormRetraining()])

    for name, expected in signs.items():
        np.testing.assert_array_equal(structure.latent_kernel(found[name]), expected)
    changed = {weight.name for weight in inner.weights if (weight.numpy() != before[weight.name]).any()}
    normalizations = (found["bn"], found["norm"].batch_normalization)
    kernels = {found[name].kernel.name for name in signs}
    assert changed - kernels == {weight.name for layer in normalizations for weight in layer.weights}
    assert {layer: layer.trainable for layer in structure.layers(network)} == trainable


def test_a_network_without_batch_normalization_is_refused():
    network = tf.keras.Sequential([tf.keras.Input((4, 4, 2)), tf.keras.layers.Conv2D(4, 3)])
    network.compile("sgd", "mse")
    with pytest.raises(UsageError, match=r"no batch normalization to retrain: received 'sequential.*' without one"):
        network.fit(X, np.zeros((8, 2, 2, 4)), verbose=0, callbacks=[BatchNormRetraining()])
