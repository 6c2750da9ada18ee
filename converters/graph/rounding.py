"""Rounding constants to 8 or 16 bits."""

import numpy as np
import tensorflow as tf

LARGEST = {8: 127, 16: 32767}


def scales_per_channel(kernel: np.ndarray, axis: int, bits: int = 8) -> np.ndarray:
    """One positive float32 scale per channel of an axis, so that the largest magnitude becomes 127 or 32767.

    The scales broadcast against the kernel: `kernel / scales`.
    """
    others = tuple(k for k in range(kernel.ndim) if k != axis % kernel.ndim)
    largest = np.abs(kernel).max(others, keepdims=True)
    return np.where(largest > 0, largest, 1.0).astype(np.float32) / np.float32(LARGEST[bits])


def rounded_kernel(kernel: np.ndarray, bits: int = 8) -> np.ndarray:
    """Rounds a kernel `(..., filters)` to int8 or int16 with one scale per filter."""
    scales = scales_per_channel(kernel, -1, bits)
    return (np.round(kernel / scales) * scales).astype(np.float32)


def rounded_tensor(constants: np.ndarray) -> np.ndarray:
    """Rounds constants to int8 with one common scale, to levels that are symmetric around zero."""
    return rounded_kernel(constants.reshape(-1, 1)).reshape(constants.shape)


def rounded_between_extremes(constants: np.ndarray) -> np.ndarray:
    """Rounds constants to 256 levels from the smallest to the largest constant, with zero as one of the levels."""
    low, high = min(0.0, float(constants.min())), max(0.0, float(constants.max()))
    if low == high:
        return constants
    values = tf.constant(constants, tf.float32)
    return np.asarray(tf.quantization.fake_quant_with_min_max_args(values, low, high), np.float64)
