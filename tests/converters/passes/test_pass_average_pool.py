"""Average pooling over 2x2 values as resizing to half the size."""

import numpy as np
import pytest
import tensorflow as tf
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import Pool
from kbnn.converters.passes.average_pool import Halve, halve_by_resizing


def pooled(pool, size=(6, 6), out=(3, 3)):
    b = Builder((*size, 32))
    return b.graph(b.add("pool", pool, "image", shape=(*out, 32)))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_average_pooling_halves_an_image_by_resizing(padding):
    graph = pooled(Pool("mean", (2, 2), (2, 2), padding))
    rewritten = halve_by_resizing(graph)
    assert_equal(graph, rewritten)
    assert operators(graph) == ["AVERAGE_POOL_2D"]
    assert operators(rewritten) == ["RESIZE_BILINEAR"]


def test_halving_by_hand():
    x = np.array([[1.0, 2.0, 0.0, 4.0], [3.0, 6.0, -8.0, 8.0]], np.float32).reshape(1, 2, 4, 1)
    np.testing.assert_array_equal(Halve()(tf.constant(x)).numpy().ravel(), [3.0, 1.0])


@pytest.mark.parametrize(
    ("pool", "size", "out"),
    [
        (Pool("max", (2, 2), (2, 2), "same"), (6, 6), (3, 3)),
        (Pool("mean", (2, 2), (2, 2), "same"), (5, 6), (3, 3)),
        (Pool("mean", (3, 3), (2, 2), "same"), (6, 6), (3, 3)),
        (Pool("mean", (2, 2), (1, 1), "same"), (6, 6), (6, 6)),
    ],
    ids=["maximum", "odd height", "3x3", "stride 1"],
)
def test_other_pooling_stays(pool, size, out):
    graph = pooled(pool, size, out)
    assert halve_by_resizing(graph) is graph
