"""Shifts, shuffles and parametric ReLUs against NumPy float64."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from gradients import output_and_gradients

from kbnn import layers
from kbnn.errors import UsageError

CHANNELS = 8
INPUTS = {
    "images": np.random.default_rng(0).normal(size=(3, 4, 5, CHANNELS)),
    "dense": np.random.default_rng(1).normal(size=(6, CHANNELS)),
    "edges": np.resize(reference.EDGES, (2, 4, 4, CHANNELS)),
    "huge": np.resize(reference.HUGE, (2, 3, 3, CHANNELS)) / 4,
}


def prelu(x, gamma, slope, zeta, dy):
    u = x - gamma
    dx = dy * np.where(u > 0, 1, slope)
    axes = tuple(range(x.ndim - 1))
    return np.where(u > 0, u, slope * u) + zeta, dx, -dx.sum(axes), (dy * np.minimum(u, 0)).sum(axes), dy.sum(axes)


def randomized(layer, shape):
    layer.build(shape)
    rng = np.random.default_rng(2)
    for weight in layer.weights:
        weight.assign(rng.uniform(-1, 1, weight.shape))
    return layer


def per_channel(weight, groups=None):
    value = weight.numpy().astype(np.float64)
    return value if groups is None else np.repeat(value, CHANNELS // groups)


def per_group(gradient, groups):
    return gradient if groups is None else gradient.reshape(groups, -1).sum(1)


@pytest.mark.xla
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_channel_shift(x):
    x = x.astype(np.float32)
    dy = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    layer = randomized(layers.ChannelShift(), x.shape)
    y, dx, others = output_and_gradients(layer, x, dy)
    np.testing.assert_allclose(y, x.astype(np.float64) + per_channel(layer.bias), 1e-6)
    np.testing.assert_array_equal(dx, dy)
    np.testing.assert_allclose(others["bias"], dy.sum(tuple(range(x.ndim - 1)), np.float64), 1e-5, 1e-6)


@pytest.mark.xla
@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, 1, 2, 8])
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_biased_prelu(x, groups):
    x = x.astype(np.float32)
    dy = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    layer = randomized(layers.BiasedPReLU(groups), x.shape)
    gamma, slope = per_channel(layer.gamma, groups), per_channel(layer.slope, groups)
    y, dx, others = output_and_gradients(layer, x, dy)
    expected, expected_dx, dgamma, dslope, _ = prelu(x.astype(np.float64), gamma, slope, 0, dy.astype(np.float64))
    np.testing.assert_allclose(y, expected, reference.RTOL, reference.ATOL)
    np.testing.assert_allclose(dx, expected_dx, reference.RTOL, reference.ATOL)
    np.testing.assert_allclose(others["gamma"], per_group(dgamma, groups), reference.RTOL, 1e-5)
    np.testing.assert_allclose(others["slope"], per_group(dslope, groups), reference.RTOL, 1e-5)


@pytest.mark.xla
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_rprelu(x):
    x = x.astype(np.float32)
    dy = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    layer = randomized(layers.RPReLU(), x.shape)
    parameters = [per_channel(weight) for weight in (layer.gamma, layer.slope, layer.zeta)]
    y, dx, others = output_and_gradients(layer, x, dy)
    expected, expected_dx, dgamma, dslope, dzeta = prelu(x.astype(np.float64), *parameters, dy.astype(np.float64))
    np.testing.assert_allclose(y, expected, reference.RTOL, reference.ATOL)
    np.testing.assert_allclose(dx, expected_dx, reference.RTOL, reference.ATOL)
    for name, gradient in (("gamma", dgamma), ("slope", dslope), ("zeta", dzeta)):
        np.testing.assert_allclose(others[name], gradient, reference.RTOL, 1e-5)


@pytest.mark.xla
@pytest.mark.slow
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("kind", [layers.PReLU, layers.Maxout])
def test_slopes_without_bias(kind, x):
    x = x.astype(np.float32)
    dy = np.random.default_rng(3).normal(size=x.shape).astype(np.float32)
    layer = randomized(kind(), x.shape)
    positive = per_channel(layer.positive) if kind is layers.Maxout else 1.0
    negative = per_channel(layer.weights[-1])
    y, dx, others = output_and_gradients(layer, x, dy)
    wide, wide_dy, axes = x.astype(np.float64), dy.astype(np.float64), tuple(range(x.ndim - 1))
    expected = positive * np.maximum(wide, 0) + negative * np.minimum(wide, 0)
    np.testing.assert_allclose(y, expected, reference.RTOL, reference.ATOL)
    np.testing.assert_allclose(dx, wide_dy * np.where(x > 0, positive, negative), reference.RTOL, reference.ATOL)
    parts = {"positive": np.maximum(wide, 0), "negative": np.minimum(wide, 0), "slope": np.minimum(wide, 0)}
    for name, gradient in others.items():
        with np.errstate(over="ignore"):
            total = (wide_dy * parts[name]).sum(axes).astype(np.float32)
        np.testing.assert_allclose(gradient, total, reference.RTOL, 1e-5)


def test_prelu_equals_keras():
    x = INPUTS["images"].astype(np.float32)
    keras = tf.keras.layers.PReLU(alpha_initializer=tf.keras.initializers.Constant(0.25), shared_axes=[1, 2])
    np.testing.assert_allclose(layers.PReLU()(x), keras(x), 1e-6)


def test_prelus_are_initialized_as_published():
    maxout = layers.Maxout()
    maxout.build((None, 4))
    assert [set(weight.numpy()) for weight in (maxout.positive, maxout.negative)] == [{1.0}, {0.25}]
    layer = layers.RPReLU()
    layer.build((None, 4))
    assert [set(weight.numpy()) for weight in (layer.gamma, layer.zeta, layer.slope)] == [{0.0}, {0.0}, {0.25}]


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_channel_shuffle(groups):
    x = INPUTS["images"].astype(np.float32)
    y = layers.ChannelShuffle(groups)(x).numpy()
    for i in range(CHANNELS // groups):
        for g in range(groups):
            np.testing.assert_array_equal(y[..., i * groups + g], x[..., g * (CHANNELS // groups) + i])


def test_channel_shuffle_keeps_static_shapes():
    assert layers.ChannelShuffle(2)(tf.keras.Input((8, 7, 4))).shape == (None, 8, 7, 4)
    assert layers.ChannelShuffle(2)(tf.keras.Input((None, None, 4))).shape[-1] == 4
    assert layers.ChannelShuffle(2)(tf.keras.Input((6,))).shape == (None, 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: layers.ChannelShuffle(3)(x), "8 channels cannot be split into groups=3"),
        (lambda x: layers.ChannelShuffle(0)(x), "8 channels cannot be split into groups=0"),
        (lambda x: layers.BiasedPReLU(3)(x), "8 channels cannot be split into groups=3"),
        (lambda x: layers.ChannelShift()(tf.keras.Input((4, None))), "known number of channels: received"),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make(tf.keras.Input((4, 4, 8)))
