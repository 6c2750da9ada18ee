"""Ranges of int8 values."""

import numpy as np
from sample_graphs import Builder

from kbnn.converters.graph.operations import PReLU
from kbnn.converters.passes.int8 import calibrated

SLOPE = 0.4


def limits(images, *, is_output):
    b = Builder()
    x = b.add("act", PReLU(np.full(32, SLOPE)), "image")
    graph = b.graph(x if is_output else b.prelu("end", x))
    return calibrated(graph, [{"image": part.astype(np.float32)} for part in np.split(images, 10)])


def error(values, low, high):
    """The mean squared error of 256 levels, zero among them."""
    step = (high - low) / 255
    zero = np.round(-low / step)
    return np.mean(((np.clip(np.round(values / step) + zero, 0, 255) - zero) * step - values) ** 2)


def test_rare_large_values_are_clipped_for_finer_levels():
    images = np.random.default_rng(0).laplace(size=(200, 6, 6, 32))
    found = limits(images, is_output=False)
    assert found["image"] == (np.float32(images.min()), np.float32(images.max()))
    low, high = found["act"]
    values = np.where(images >= 0, images, SLOPE * images)
    assert (low, high) != (values.min(), values.max())
    assert error(values, low, high) < error(values, values.min(), values.max())


def test_outputs_keep_their_extremes():
    """Clipped logits would tie."""
    images = np.random.default_rng(0).laplace(size=(200, 6, 6, 32))
    assert limits(images, is_output=True)["act"][1] == np.float32(images.max())
