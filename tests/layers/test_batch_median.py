"""Batch median: statistics, gradients, averages, thresholds."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers import BatchMedian, batch_median

RNG = np.random.default_rng(0)
BATCHES = {
    "normal": RNG.normal(0.3, 2, (4, 5, 6, 3)),
    "relu": np.maximum(RNG.normal(0, 1, (4, 5, 6, 3)), 0),
    "positive": np.abs(RNG.normal(0, 1, (4, 5, 6, 3))) + 3,
    "negative": -np.abs(RNG.normal(0, 1, (4, 5, 6, 3))) - 3,
    "equal": np.full((4, 5, 6, 3), 0.7),
    "zeros": np.zeros((2, 3, 3, 3)),
    "one sample": RNG.normal(0, 1, (1, 4, 4, 3)),
    "one value a channel": RNG.normal(0, 1, (1, 1, 1, 3)),
    "dense": RNG.normal(0, 1, (7, 3)),
    "even count": RNG.normal(0, 1, (2, 3)),
    "huge": RNG.normal(0, 1, (4, 5, 6, 3)) * 1e30,
    "tiny": RNG.normal(0, 1, (4, 5, 6, 3)) * 1e-22,
    "edges": np.resize(reference.EDGES, (4, 4, 4, 3)),
}


def built(channels: int = 3, gamma=None, beta=None, **kwargs) -> BatchMedian:
    layer = BatchMedian(**kwargs)
    layer.build((None, channels))
    if gamma is not None:
        layer.gamma.assign(gamma)
    if beta is not None:
        layer.beta.assign(beta)
    return layer


@pytest.mark.xla
@pytest.mark.core("dense-moved")
@pytest.mark.parametrize("parameters", ["initial", "moved"])
@pytest.mark.parametrize("kind", BATCHES)
def test_training_equals_the_formula(kind, parameters):
    a = BATCHES[kind].astype(np.float32)
    gamma, beta = ([1, 1, 1], [0, 0, 0]) if parameters == "initial" else ([0.5, 1, 2], [0.4, -0.3, 0.1])
    gamma, beta = np.float32(gamma), np.float32(beta)
    dy = np.random.default_rng(1).normal(size=a.shape).astype(np.float32)
    layer = built(3, gamma, beta)
    x = tf.constant(a)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    dx, dgamma, dbeta = tape.gradient(y, [x, layer.gamma, layer.beta], tf.constant(dy))

    wide = [value.astype(np.float64) for value in (a, gamma, beta, dy)]
    expected, expected_dx, expected_dgamma, expected_dbeta = reference.batch_median(*wide)
    _, median, positive, negative = reference.batch_median(*wide[:3])
    np.testing.assert_allclose(y, expected, reference.RTOL, reference.ATOL)
    unit = max(1.0, np.abs(expected_dx).max())
    np.testing.assert_allclose(dx / unit, expected_dx / unit, reference.RTOL, reference.ATOL)
    np.testing.assert_allclose(dgamma, expected_dgamma, reference.RTOL, 1e-5)
    np.testing.assert_allclose(dbeta / unit, expected_dbeta / unit, reference.RTOL, 1e-5)
    np.testing.assert_allclose(layer.moving_median, 0.01 * median, 1e-4, 1e-8)
    np.testing.assert_allclose(layer.moving_positive_rms, 0.99 + 0.01 * positive, 1e-5)
    np.testing.assert_allclose(layer.moving_negative_rms, 0.99 + 0.01 * negative, 1e-5)


def by_formula(x: tf.Tensor, median: float) -> tf.Tensor:
    """Equation 12 with TensorFlow's own gradients."""
    m = x - median
    above, below = tf.cast(m > 0, x.dtype), tf.cast(m < 0, x.dtype)
    sides = [tf.sqrt(tf.reduce_sum(side * m**2) / tf.reduce_sum(side)) for side in (above, below)]
    return tf.where(m > 0, m / sides[0], m / sides[1])


@pytest.mark.parametrize("kind", ["plain", pytest.param("compiled", marks=[pytest.mark.xla, pytest.mark.slow])])
def test_second_derivatives_flow_through_the_scales(kind):
    x, v = (tf.constant(RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)) for _ in range(2))
    layer, median = built(), float(np.median(x))
    found = []
    for function in (lambda x: layer(x, training=True), lambda x: by_formula(x, median)):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(tf.sin(function(x)))
            product = tf.reduce_sum(inner.gradient(y, x) * v)
        found.append(outer.gradient(product, x))
    np.testing.assert_allclose(*found, 1e-4, 1e-5 * np.abs(found[1]).max())


@pytest.mark.slow
def test_moving_averages_are_plain():
    layer = built(1, momentum=0.9)
    medians = [2.0, -1.0, 4.0]
    expected = 0.0
    for median in medians:
        layer(tf.constant([[median - 1], [median], [median + 3]]), training=True)
        expected = 0.9 * expected + 0.1 * median
    assert float(layer.moving_median) == pytest.approx(expected, rel=1e-5)
    assert layer.get_config()["momentum"] == 0.9


@pytest.mark.parametrize("call", [{"training": False}, {}], ids=["training=False", "no argument"])
def test_inference_uses_the_averages(call):
    layer = built(3, [0.5, 1, 2], [0.4, -0.3, 0.1])
    for average, value in ((layer.moving_median, 0.7), (layer.moving_positive_rms, 2.0)):
        average.assign(value)
    layer.moving_negative_rms.assign(0.5)
    a = BATCHES["normal"].astype(np.float32)
    m = a.astype(np.float64) - np.float32(0.7) + np.float32([0.4, -0.3, 0.1])
    expected = np.float32([0.5, 1, 2]) * m / np.where(m < 0, 0.5, 2.0)
    np.testing.assert_allclose(layer(a, **call), expected, reference.RTOL, reference.ATOL)
    assert float(layer.moving_median) == pytest.approx(0.7)


def test_frozen_layer_uses_the_averages_in_training():
    layer = built(3)
    layer.trainable = False
    a = BATCHES["normal"].astype(np.float32)
    np.testing.assert_array_equal(layer(a, training=True), layer(a, training=False))
    assert float(layer.moving_median) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sign_is_exactly_the_threshold(dtype):
    rng = np.random.default_rng(2)
    layer = BatchMedian(dtype=tf.keras.mixed_precision.Policy(dtype if dtype == "float32" else f"mixed_{dtype}"))
    layer.build((None, 64))
    layer.beta.assign(rng.normal(0, 1, 64))
    layer.gamma.assign(np.exp(rng.normal(0, 2, 64)))
    layer.moving_median.assign(0.3141593)
    layer.moving_positive_rms.assign(7.0)
    layer.moving_negative_rms.assign(0.01)
    threshold = layer.threshold().numpy()
    np.testing.assert_array_equal(threshold, np.float32(0.3141593) - layer.beta.numpy())
    near = threshold + np.float32([[0], [1e-7], [-1e-7], [1e-3], [-1e-3]])
    a = np.concatenate([near, np.nextafter(near, np.float32(9)), rng.normal(0, 1, (500, 64))]).astype(np.float32)
    a = tf.cast(a, dtype)
    y = layer(a, training=False)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y >= 0, tf.cast(a, tf.float32).numpy() >= threshold)


def test_gamma_stays_positive():
    layer = built(2)
    optimizer = tf.keras.optimizers.SGD(1.0)
    optimizer.apply_gradients([(tf.constant([5.0, -1.0]), layer.gamma)])
    assert (layer.gamma.numpy() > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_statistics_in_float32_under_mixed_precision(policy):
    a = BATCHES["normal"].astype(np.float32) * 300
    layer = BatchMedian(dtype=tf.keras.mixed_precision.Policy(policy))
    y = layer(a, training=True)
    compute = layer.compute_dtype
    rounded = tf.cast(tf.cast(a, compute), tf.float64).numpy()
    expected, median, positive, _ = reference.batch_median(rounded, np.ones(3), np.zeros(3))
    assert y.dtype == compute
    assert {weight.dtype for weight in layer.weights} == {tf.float32}
    np.testing.assert_allclose(layer.moving_median, 0.01 * median, 1e-4)
    np.testing.assert_allclose(layer.moving_positive_rms, 0.99 + 0.01 * positive, 1e-5)
    np.testing.assert_allclose(tf.cast(y, tf.float64), expected, 2**-7, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        (128, 32, 32, 16),
        (64, 32, 32, 64),
        (64, 4, 4, 512),
        (32, 14, 14, 256),
        (3, 7, 7, 512),
        (2, 1, 1, 70000),
        (500, 64),
    ],
)
def test_sample_keeps_the_rank(shape):
    rng = np.random.default_rng(3)
    # Channels with different centres, images of different brightness, a gradient across the columns.
    a = rng.normal(size=shape) * rng.uniform(0.5, 2, shape[-1]) + rng.normal(size=shape[-1])
    a += rng.normal(size=(shape[0],) + (1,) * (len(shape) - 1))
    if len(shape) == 4:
        a += np.linspace(-1, 1, shape[2])[:, None]
    sample = batch_median.sample_rows(tf.constant(a, tf.float32))
    assert 0 < sample.shape.num_elements() <= max(3 * batch_median.SAMPLE, batch_median.LEAST_ROWS * shape[-1])
    median = float(batch_median.median_of(tf.constant(a, tf.float32)))
    assert abs((a < median).mean() - 0.5) < 0.005


def test_small_batches_are_sampled_completely():
    a = tf.random.normal((5, 4, 4, 8))
    np.testing.assert_array_equal(batch_median.sample_rows(a), tf.reshape(a, (-1, 8)))


def test_unknown_channels():
    with pytest.raises(UsageError, match="known number of channels"):
        BatchMedian()(tf.keras.Input((8, 8, None)))


def test_momentum_outside_of_0_to_1_is_refused():
    with pytest.raises(UsageError, match="momentum must be in"):
        BatchMedian(momentum=2.0)
