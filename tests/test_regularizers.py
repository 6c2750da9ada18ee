"""Penalties against values worked by hand."""

import pytest
import tensorflow as tf

import kbnn


@pytest.mark.parametrize(
    ("weights", "expected"), [([1, 2, -1, -1], 0), ([3, -1, -1], 2 / 3), ([1, 2, 3], 1), ([0, 0], 0)]
)
def test_median_loss_by_hand(weights, expected):
    assert float(kbnn.regularizers.median_loss(tf.constant(weights, tf.float32))) == pytest.approx(expected, abs=1e-7)
