"""Strictly increasing operations before a sign become a threshold."""

import numpy as np
import pytest
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import Affine, Clip, ElementwiseFunction, PReLU
from kbnn.converters.passes.thresholds import signs_as_thresholds


def kinds(graph):
    return [type(node.operation).__name__ for node in graph]


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_becomes_one_shift(seed):
    b = Builder(seed=seed)
    x = b.rprelu("rprelu", b.affine("bn", b.rprelu("before", "image")))
    graph = b.graph(b.sign("sign", x))
    rewritten = signs_as_thresholds(graph)
    assert kinds(rewritten) == ["Input", "Affine", "Sign"]
    assert rewritten["sign/threshold"].operation.is_shift
    assert_equal(graph, rewritten)


def test_ties_stay_ties():
    """sign(0) = +1: a value equal to the threshold is not below it."""
    b = Builder()
    x = b.add("shift", Affine(np.ones(32), np.full(32, -0.5)), "image")
    x = b.add("zeta", Affine(np.ones(32), np.full(32, 0.25)), b.add("prelu", PReLU(np.full(32, 0.25)), x))
    graph = signs_as_thresholds(b.graph(b.sign("sign", x)))
    # PReLU(x - 0.5) + 0.25 >= 0 from x = -0.5 on.
    assert np.array_equal(graph["sign/threshold"].operation.offset, np.full(32, 0.5))


def test_an_rprelu_before_a_sign_costs_one_addition():
    b = Builder()
    graph = b.graph(b.convolution("conv", b.rprelu("rprelu", b.sum("sum", "image", b.convolution("first", "image")))))
    assert operators(graph).count("PRELU") == 1
    rewritten = operators(signs_as_thresholds(graph))
    assert rewritten == ["LceQuantize", "LceBconv2d", "ADD", "ADD", "LceQuantize", "LceBconv2d"]


def test_clipping_keeps_signs():
    b = Builder()
    graph = b.graph(b.sign("sign", b.add("clip", Clip(-1.0, 1.0), "image")))
    assert kinds(signs_as_thresholds(graph)) == ["Input", "Sign"]


@pytest.mark.parametrize(("shift", "passes"), [(0.9, True), (-1.0, True), (1.0, False), (-1.1, False)])
def test_a_threshold_between_the_bounds_passes_a_clip(shift, passes):
    """clip(x, -1, 1) >= -1 always, clip(x, -1, 1) >= 1 where x >= 1."""
    b = Builder()
    x = b.add("rsign", Affine(np.ones(32), np.full(32, shift)), b.add("clip", Clip(-1.0, 1.0), "image"))
    graph = b.graph(b.sign("sign", x))
    rewritten = signs_as_thresholds(graph)
    assert ("Clip" in kinds(rewritten)) == (not passes)
    assert_equal(graph, rewritten)


@pytest.mark.parametrize(
    "operation",
    [
        PReLU(np.full(32, -0.1)),
        PReLU(np.zeros(32)),
        Affine(np.linspace(-1, 1, 32), np.zeros(32)),
        ElementwiseFunction(np.abs),
    ],
    ids=["falling", "flat", "negative scale", "unknown"],
)
def test_operations_that_are_not_strictly_increasing_stay(operation):
    b = Builder()
    graph = b.graph(b.sign("sign", b.add("before", operation, "image")))
    assert kinds(signs_as_thresholds(graph)) == kinds(graph)


def test_a_value_with_other_readers_stays():
    b = Builder()
    x = b.prelu("prelu", "image")
    graph = b.graph(b.sum("sum", x, b.sign("sign", x)))
    assert kinds(signs_as_thresholds(graph)) == kinds(graph)


def test_batch_normalization_after_a_convolution_is_left_to_the_converter():
    b = Builder()
    graph = b.graph(b.convolution("second", b.convolution("first", "image")))
    assert kinds(signs_as_thresholds(graph)) == kinds(graph)
    assert operators(graph) == ["LceQuantize", "LceBconv2d", "LceBconv2d"]
