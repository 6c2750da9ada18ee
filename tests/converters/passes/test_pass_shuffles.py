"""Shuffles are removed where another order of channels makes them unnecessary."""

import numpy as np
import pytest
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import Concatenate, Convolution, Dense, Shuffle
from kbnn.converters.passes.shuffles import remove_shuffles


def shuffles(graph):
    return sum(isinstance(node.operation, Shuffle) for node in graph)


def real(b, name, x, groups=1):
    kernel = b.random.normal(size=(1, 1, 32 // groups, 32))
    return b.add(name, Convolution(kernel, b.random.normal(size=32), (1, 1), (1, 1), "valid", groups), x)


def logits(b, x):
    return b.add("logits", Dense(b.random.normal(size=(32, 4)), np.zeros(4)), b.mean("mean", x), shape=(4,))


@pytest.mark.parametrize("groups", [2, 4])
def test_a_shuffle_between_ungrouped_convolutions_is_removed(groups):
    b = Builder()
    x = b.prelu("act", b.affine("bn", b.convolution("first", "image")))
    x = b.add("shuffle", Shuffle(groups), x)
    x = b.sum("sum", x, b.convolution("second", b.shift("rsign", x)))
    graph = b.graph(logits(b, x))
    rewritten = remove_shuffles(graph)
    assert shuffles(rewritten) == 0
    assert_equal(graph, rewritten)
    assert "TRANSPOSE" in operators(graph)
    assert "TRANSPOSE" not in operators(rewritten)


def test_a_shuffle_after_a_residual_stream_is_removed():
    b = Builder()
    x = real(b, "stem", "image")
    x = b.sum("sum", x, b.convolution("conv", x))
    x = b.add("shuffle", Shuffle(2), x)
    graph = b.graph(b.convolution("grouped", x, groups=2))
    rewritten = remove_shuffles(graph)
    assert shuffles(rewritten) == 0
    assert_equal(graph, rewritten)


def test_a_shuffle_before_a_classifier_is_removed():
    b = Builder()
    x = b.convolution("grouped", "image", groups=2)
    graph = b.graph(logits(b, b.add("shuffle", Shuffle(2), x)))
    rewritten = remove_shuffles(graph)
    assert shuffles(rewritten) == 0
    assert_equal(graph, rewritten)


def test_a_shuffle_between_grouped_convolutions_stays():
    b = Builder()
    x = b.convolution("first", "image", groups=2)
    graph = b.graph(b.convolution("second", b.add("shuffle", Shuffle(2), x), groups=2))
    assert remove_shuffles(graph) is graph


def test_shuffled_values_that_are_added_to_unshuffled_ones_stay():
    b = Builder()
    x = real(b, "stem", "image")
    graph = b.graph(logits(b, b.sum("sum", x, b.add("shuffle", Shuffle(2), x))))
    assert remove_shuffles(graph) is graph


def test_parts_and_outputs_keep_their_order():
    b = Builder()
    x = b.add("shuffle", Shuffle(2), "image")
    parts = b.add("both", Concatenate(), x, x, shape=(6, 6, 64))
    assert shuffles(remove_shuffles(b.graph(parts))) == 1
    assert shuffles(remove_shuffles(b.graph(x))) == 1


def test_a_grouped_real_convolution_keeps_its_order():
    b = Builder()
    x = real(b, "first", "image", groups=2)
    graph = b.graph(real(b, "second", b.add("shuffle", Shuffle(2), x), groups=2))
    rewritten = remove_shuffles(graph)
    assert_equal(graph, rewritten)
    assert shuffles(rewritten) == 1
