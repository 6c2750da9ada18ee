"""Group normalization and PresB-Net's group-aware normalization against NumPy float64."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from gradients import output_and_gradients

from kbnn.errors import UsageError
from kbnn.layers import BiasedPReLU, GroupAwareNormalization, GroupNormalization, RPReLU

X = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 8)).astype(np.float32)
DY = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)


def normalized(x, groups=1, epsilon=1e-5):
    grouped = x.reshape(*x.shape[:3], groups, -1)
    mean = grouped.mean((1, 2, 4), keepdims=True)
    deviation = np.sqrt(grouped.var((1, 2, 4), keepdims=True) + epsilon)
    return ((grouped - mean) / deviation).reshape(x.shape), deviation


def gradient(x, dy, groups=1):
    y, deviation = normalized(x, groups)
    y, dy = (value.reshape(*x.shape[:3], groups, -1) for value in (y, dy))
    mean = lambda value: value.mean((1, 2, 4), keepdims=True)  # noqa: E731
    return ((dy - mean(dy) - y * mean(dy * y)) / deviation).reshape(x.shape)


@pytest.mark.xla
@pytest.mark.parametrize("groups", [1, 2])
def test_group_normalization(groups):
    y, dx, others = output_and_gradients(GroupNormalization(groups), X, DY)
    wide = X.astype(np.float64)
    np.testing.assert_allclose(y, normalized(wide, groups)[0], reference.RTOL, reference.ATOL)
    np.testing.assert_allclose(dx, gradient(wide, DY.astype(np.float64), groups), reference.RTOL, reference.ATOL)
    assert others == {}


@pytest.mark.xla
def test_affine_group_normalization():
    layer = GroupNormalization(2, affine=True)
    layer.build(X.shape)
    gamma, beta = np.linspace(0.5, 2, 8), np.linspace(-1, 1, 8)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    y, _, others = output_and_gradients(layer, X, DY)
    expected = normalized(X.astype(np.float64), 2)[0]
    np.testing.assert_allclose(y, expected * gamma + beta, 1e-4, 1e-5)
    np.testing.assert_allclose(others["gamma"], (DY * expected).sum((0, 1, 2)), 1e-4, 1e-4)
    np.testing.assert_allclose(others["beta"], DY.sum((0, 1, 2)), 1e-4, 1e-4)


def test_equal_activations_give_zeros():
    y, dx, _ = output_and_gradients(GroupNormalization(), np.full((2, 3, 3, 4), 0.5, np.float32), np.ones((2, 3, 3, 4)))
    np.testing.assert_array_equal(y, 0)
    assert np.isfinite(dx).all()


def test_unknown_height_and_width():
    layer = GroupNormalization()
    model = tf.keras.Sequential([tf.keras.Input((None, None, 8)), layer])
    np.testing.assert_allclose(model(X), normalized(X.astype(np.float64))[0], 1e-4, 1e-5)


@pytest.mark.xla
@pytest.mark.parametrize("scope", ["layer", "group"])
def test_group_aware_normalization_is_its_three_steps(scope):
    layer = GroupAwareNormalization(2, scope, momentum=0.9)
    y = layer(X, training=True)
    x = normalized(X.astype(np.float64), 2 if scope == "group" else 1)[0]
    x = np.where(x > 0, x, 0.25 * x)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), 1e-3, 1e-4)
    np.testing.assert_allclose(layer.batch_normalization.moving_mean, 0.1 * mean, 1e-3, 1e-5)
    assert isinstance(layer.activation, BiasedPReLU)
    assert layer.layer_normalization.affine == (scope == "group")


@pytest.mark.parametrize("activation", [None, RPReLU()], ids=["none", "rprelu"])
def test_activation_between_is_a_choice(activation):
    layer = GroupAwareNormalization(activation=activation)
    assert layer(X).shape == X.shape
    again = GroupAwareNormalization.from_config(layer.get_config())
    assert type(again.activation) is type(activation)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupAwareNormalization(scope="batch"), "unknown scope"),
        (lambda: GroupAwareNormalization(groups=3)(X), "8 channels cannot be split into groups=3"),
        (lambda: GroupNormalization(5)(X), "8 channels cannot be split into groups=5"),
        (lambda: GroupNormalization()(X[:, 0, 0]), r"takes \(batch, height, width, channels\)"),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make()
