"""Retraining batch normalization with frozen ±1 kernels."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, quantizers
from kbnn.errors import UsageError
from kbnn.training import BatchNormRetraining

X = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype(np.float32)
Y = np.arange(8) % 4


def model(kernel_quantizer: Any) -> tf.keras.Model:
    inputs = tf.keras.Input((4, 4, 2))
    x = tf.keras.layers.Conv2D(4, 3, name="stem")(inputs)
    conv = layers.BinaryConv2D(4, 3, input_quantizer="ste_sign", kernel_quantizer=kernel_quantizer, name="conv")
    x = tf.keras.layers.BatchNormalization(name="bn")(conv(x))
    built = tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(x))
    built.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


def weights(network: tf.keras.Model, name: str) -> list[np.ndarray]:
    return [weight.copy() for weight in network.get_layer(name).get_weights()]


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


def test_a_quantizer_that_cannot_keep_them():
    network = model(quantizers.HalfHalf("identity"))
    # Of two magnitudes that are equal, half-half marks one: a filter of ones does not stay one.
    network.get_layer("conv").latent_kernel.assign(tf.random.stateless_normal([3, 3, 4, 4], [1, 2]))
    with pytest.raises(UsageError, match="layer 'conv' cannot keep ±1 kernels: its HalfHalf maps them to other signs"):
        network.fit(X, Y, verbose=0, callbacks=[BatchNormRetraining()])
