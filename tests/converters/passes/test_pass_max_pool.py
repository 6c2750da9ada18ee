"""Batch normalization moves before max-pooling."""

import numpy as np
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import Affine, Pool
from kbnn.converters.passes.max_pool import affine_before_max_pool


def network(b, scale):
    x = b.add("pool", Pool("max", (2, 2), (2, 2), "valid"), b.convolution("first", "image"), shape=(3, 3, 32))
    x = b.add("bn", Affine(scale, b.random.normal(size=32)), x)
    return b.graph(b.sign("sign", x))


def test_bits_are_pooled():
    b = Builder()
    graph = network(b, b.random.uniform(0.5, 2, 32))
    swapped = affine_before_max_pool(graph)
    assert_equal(graph, swapped)
    assert "MAX_POOL_2D" in operators(graph)
    assert operators(swapped) == ["LceQuantize", "LceBconv2d", "LceBMaxPool2d", "LceDequantize"]


def test_a_negative_scale_stays_behind_the_pool():
    graph = network(Builder(), np.linspace(-1, 1, 32))
    assert affine_before_max_pool(graph) is graph
