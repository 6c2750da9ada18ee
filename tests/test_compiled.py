"""Partial sums over positions."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn import compiled

# Fewer rows than parts, whole parts, parts of parts, and remaining rows.
ROWS = (1, 7, 8, 64, 75, 1000)


@pytest.fixture(params=[pytest.param("xla", marks=pytest.mark.xla), "without xla"])
def xla(request: pytest.FixtureRequest) -> None:
    """Runs a test compiled, and uncompiled."""
    assert compiled.available() is (request.param == "xla")


@pytest.mark.slow
@pytest.mark.usefixtures("xla")
@pytest.mark.parametrize("rows", ROWS)
def test_sums_over_positions(rows):
    rng = np.random.default_rng(rows)
    x, y = (rng.normal(size=(rows, 1, 5)).astype(np.float32) for _ in range(2))

    @compiled.compiled
    def one(x, y):
        return compiled.partial_sums(lambda x, y: x * y, x, y)

    @compiled.compiled
    def several(x, y):
        return compiled.partial_sums(lambda x, y: (x, x * y, tf.maximum(y, 0.0)), x, y)

    @compiled.compiled
    def largest(x):
        return compiled.partial_sums(tf.abs, x, add=tf.maximum)

    def total(values):
        return values.astype(np.float64).sum((0, 1))

    np.testing.assert_allclose(compiled.total(one(x, y)), total(x * y), 1e-5, 1e-5)
    np.testing.assert_allclose(
        compiled.total(several(x, y)), [total(x), total(x * y), total(np.maximum(y, 0))], 1e-5, 1e-5
    )
    np.testing.assert_array_equal(tf.reduce_max(largest(x), 0), np.abs(x).max((0, 1)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_channel_sums_are_float32(dtype):
    x = tf.cast(np.random.default_rng(0).normal(size=(9, 4, 4, 3)), dtype)
    sums = compiled.channel_sums(x)
    assert sums.dtype == tf.float32
    np.testing.assert_allclose(sums, tf.cast(x, tf.float64).numpy().sum((0, 1, 2)), 1e-5, 1e-5)


class Watched(tf.keras.layers.Layer):
    """Records whether functions would be compiled in each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self.seen.append(compiled.compiling())
        return inputs + 1.0


@pytest.mark.xla
def test_nothing_is_compiled_to_learn_a_shape_or_in_the_context_for_that():
    layer = Watched()
    image = tf.keras.Input((2, 2, 1))
    model = tf.keras.Model(image, layer(image))
    assert layer.seen == [False]
    x = tf.zeros((1, 2, 2, 1))
    model(x)
    tf.function(model)(x)
    assert layer.seen == [False, True, True]
    with compiled.uncompiled():
        tf.function(lambda x: model(x))(x)
    assert layer.seen[3:] == [False]
    assert compiled.compiling()
