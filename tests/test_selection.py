"""Order statistics against sorting."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from kbnn import compiled as xla
from kbnn import selection
from kbnn.compiled import compiled

RNG = np.random.default_rng(0)


def samples(shape):
    plain = RNG.normal(size=shape)
    yield from (plain, np.round(plain), np.zeros(shape), np.ones(shape), -np.abs(plain), plain * 1e30, plain * 1e-30)


@pytest.fixture(params=[pytest.param("by-bits", marks=pytest.mark.xla), "by-sorting"])
def either_way(request):
    """Compiled functions select by bits, others by sorting."""
    assert xla.available() is (request.param == "by-bits")


@pytest.mark.core("by-sorting-shape0")
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (9, 4), (144, 7), (200, 3)])
def test_largest_equals_sorting(shape):
    for count in {0, 1, shape[0] // 2, shape[0]}:
        for x in samples(shape):
            magnitude = np.abs(x).astype(np.float32)
            marked = selection.largest(tf.constant(magnitude), count)
            np.testing.assert_array_equal(marked, reference.mark_largest(magnitude, count))


@pytest.mark.slow
@pytest.mark.xla
def test_largest_compiled():
    magnitude = np.abs(RNG.normal(size=(144, 7))).astype(np.float32)
    marked = compiled(lambda x: selection.largest(x, 72))(tf.constant(magnitude))
    np.testing.assert_array_equal(marked, reference.mark_largest(magnitude, 72))


@pytest.mark.slow
@pytest.mark.usefixtures("either_way")
def test_largest_takes_a_count_for_each_column():
    magnitude = np.abs(RNG.normal(size=(50, 4))).astype(np.float32)
    count = np.array([1, 7, 25, 50])
    marked = selection.largest(tf.constant(magnitude), tf.constant(count, tf.int32))
    np.testing.assert_array_equal(marked, reference.mark_largest(magnitude, count))


@pytest.mark.slow
@pytest.mark.usefixtures("either_way")
def test_negative_zero_is_zero():
    marked = selection.largest(tf.constant([[-0.0], [0.0], [-0.0]]), 2)
    np.testing.assert_array_equal(marked, [[True], [True], [False]])


@pytest.mark.core("by-bits-3")
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("n", [1, 2, 3, 4, 11, 1000])
def test_median(n):
    median = compiled(selection.median)
    for x in samples(n):
        x = x.astype(np.float32)
        np.testing.assert_allclose(median(tf.constant(x)), np.median(x.astype(np.float64)), 1e-6)


def test_median_of_the_largest_numbers():
    largest = reference.LARGEST
    assert float(selection.median(tf.constant([largest, largest]))) == largest
    assert float(selection.median(tf.constant([-largest, largest]))) == 0


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("k", [1, 5, 10])
def test_kth_largest(k):
    x = RNG.normal(size=(10, 3)).astype(np.float32)
    np.testing.assert_array_equal(selection.kth_largest(tf.constant(x), k), -np.sort(-x, axis=0)[k - 1])
