"""XNOR-Net's K against its formula in NumPy float64."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers import ActivationScale

RNG = np.random.default_rng(0)


def magnitudes(a: np.ndarray, kernel: tuple[int, int], stride: int, borders: list[tuple[int, int]]) -> np.ndarray:
    """K of `(B, H, W, C)` activations, zero-padded by `borders`."""
    mean = np.pad(np.abs(a.astype(np.float64)).mean(-1), [(0, 0), *borders])
    windows = np.lib.stride_tricks.sliding_window_view(mean, kernel, (1, 2))[:, ::stride, ::stride]
    return windows.mean((-2, -1))[..., np.newaxis]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "borders"),
    [
        ((3, 3), 1, "same", [(1, 1), (1, 1)]),
        ((3, 3), 2, "same", [(1, 1), (0, 1)]),
        ((1, 5), 1, "same", [(0, 0), (2, 2)]),
        ((3, 3), 2, "valid", [(0, 0), (0, 0)]),
        ((1, 1), 1, "same", [(0, 0), (0, 0)]),
        ((1, 1), 2, "same", [(0, 0), (0, 0)]),
    ],
)
def test_scales_by_the_windows_mean_magnitude(kernel, stride, padding, borders):
    a = RNG.normal(size=(2, 7, 8, 5)).astype(np.float32)
    expected = magnitudes(a, kernel, stride, borders)
    y = RNG.normal(size=(*expected.shape[:-1], 3)).astype(np.float32)
    dout = RNG.normal(size=y.shape).astype(np.float32)
    y, a = tf.constant(y), tf.constant(a)
    with tf.GradientTape() as tape:
        tape.watch([y, a])
        outputs = ActivationScale(kernel, stride, padding)([y, a])
    dy, da = tape.gradient(outputs, [y, a], dout)
    np.testing.assert_allclose(outputs, y * expected, 2e-5, 2e-6)
    np.testing.assert_allclose(dy, dout * expected, 2e-5, 2e-6)
    assert da is None


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), 2), ((1, 5), 1)])
def test_unknown_height_and_width(kernel, stride):
    a = RNG.normal(size=(2, 7, 8, 5)).astype(np.float32)
    layer = ActivationScale(kernel, stride)
    expected = layer([tf.ones((2, -(-7 // stride), -(-8 // stride), 3)), tf.constant(a)])
    inputs = tf.keras.Input((None, None, 5))
    outputs = tf.keras.Input((None, None, 3))
    model = tf.keras.Model([outputs, inputs], ActivationScale(kernel, stride)([outputs, inputs]))
    np.testing.assert_allclose(model([tf.ones_like(expected), a]), expected, 1e-5, 1e-6)


def test_the_mean_over_many_channels_is_finite_in_float16():
    a = tf.fill((1, 2, 2, 4096), tf.constant(100.0, tf.float16))
    outputs = ActivationScale(1, dtype="mixed_float16")([tf.ones((1, 2, 2, 3), tf.float16), a])
    np.testing.assert_array_equal(outputs, np.full((1, 2, 2, 3), 100.0, np.float16))


def test_scales_each_sample_of_a_dense_layer():
    y, a = tf.constant([[1.0, -2.0], [3.0, 4.0]]), tf.constant([[1.0, -3.0, 2.0], [0.0, 0.0, -6.0]])
    np.testing.assert_allclose(ActivationScale(1)([y, a]), [[2.0, -4.0], [6.0, 8.0]])


def test_a_single_input_is_refused():
    with pytest.raises(UsageError, match="a binary layer's output, its input"):
        ActivationScale(3, name="k")(tf.ones((1, 4, 4, 2)))
