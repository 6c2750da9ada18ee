"""Constants before signs and PReLUs move into the residual stream."""

import numpy as np
from sample_graphs import SHAPE, Builder, assert_equal, operators

from kbnn.converters.graph.operations import (
    Affine,
    Concatenate,
    Convolution,
    Dense,
    PadChannels,
    Pool,
    Reshape,
    Shuffle,
)
from kbnn.converters.passes.affine import merge_affine
from kbnn.converters.passes.shifts import settle_shifts
from kbnn.converters.passes.thresholds import signs_as_thresholds


def settled(graph):
    return merge_affine(settle_shifts(graph))


def additions(graph):
    return sum(isinstance(node.operation, Affine) and node.operation.is_shift for node in graph)


def stem(b):
    """A real 1x1 convolution, so that the first value has a bias that can absorb shifts."""
    kernel = b.random.normal(size=(1, 1, 32, 32))
    return b.add("stem", Convolution(kernel, np.zeros(32), (1, 1), (1, 1), "valid"), "image")


def test_a_bireal_block_with_rsign_is_three_operators():
    b = Builder()
    x = stem(b)
    for k in range(3):
        x = b.sum(f"add{k}", x, b.convolution(f"conv{k}", b.shift(f"rsign{k}", x)))
    graph = b.graph(b.mean("mean", x))
    rewritten = settled(graph)
    assert_equal(graph, rewritten)
    assert operators(rewritten) == ["CONV_2D", *["LceQuantize", "LceBconv2d", "ADD"] * 3, "MEAN"]


def test_a_reactnet_block_is_five_operators():
    b = Builder()
    x = stem(b)
    for k in range(3):
        x = b.rprelu(f"act{k}", b.sum(f"add{k}", x, b.convolution(f"conv{k}", b.shift(f"rsign{k}", x))))
    mean = b.mean("mean", x)
    graph = b.graph(b.add("logits", Dense(b.random.normal(size=(32, 4)), np.zeros(4)), mean, shape=(4,)))
    assert operators(graph)[1:8] == ["ADD", "LceQuantize", "LceBconv2d", "ADD", "ADD", "PRELU", "ADD"]
    rewritten = settled(graph)
    assert_equal(graph, rewritten)
    block = ["LceQuantize", "LceBconv2d", "ADD", "PRELU", "ADD"]
    assert operators(rewritten) == ["CONV_2D", *block, *block, *block[:-1], "MEAN", "FULLY_CONNECTED"]


def test_two_demands_on_one_value_cost_one_addition():
    b = Builder()
    x = stem(b)
    one, two = b.convolution("one", b.shift("rsign1", x)), b.convolution("two", b.shift("rsign2", x))
    graph = b.graph(b.sum("sum", one, two))
    rewritten = settled(graph)
    assert additions(rewritten) == 1
    assert_equal(graph, rewritten)


def test_shifts_pass_pools_shuffles_concatenations_and_padding():
    b = Builder()
    x = stem(b)
    b.shift("rsign", x)
    pooled = b.add("pool", Pool("mean", (2, 2), (2, 2), "same"), x, shape=(3, 3, 32))
    both = b.add("both", Concatenate(), pooled, pooled, shape=(3, 3, 64))
    shuffled = b.add("shuffled", Shuffle(2), both)
    padded = b.add("padded", PadChannels(16, 16), shuffled, shape=(3, 3, 96))
    flat = b.add("flat", Reshape((3 * 3 * 96,)), padded, shape=(3 * 3 * 96,))
    dense = b.add("dense", Dense(b.random.normal(size=(3 * 3 * 96, 4)), np.zeros(4)), flat, shape=(4,))
    graph = b.graph(b.convolution("conv", "rsign"), dense)
    rewritten = settled(graph)
    assert additions(rewritten) == 0
    assert_equal(graph, rewritten)


def test_a_grouped_real_convolution_makes_up_for_a_shift():
    b = Builder()
    x = stem(b)
    kernel = b.random.normal(size=(3, 3, 16, 8))
    valid = Convolution(kernel, np.zeros(8), (1, 1), (1, 1), "valid", groups=2)
    graph = b.graph(b.convolution("conv", b.shift("rsign", x)), b.add("grouped", valid, x, shape=(4, 4, 8)))
    rewritten = settled(graph)
    assert additions(rewritten) == 0
    assert_equal(graph, rewritten)


def test_a_zero_padded_convolution_cannot_make_up_for_a_shift():
    """At the border, padding contributes nothing to the shift."""
    b = Builder()
    x = stem(b)
    same = Convolution(b.random.normal(size=(3, 3, 32, 8)), np.zeros(8), (1, 1), (1, 1), "same")
    graph = b.graph(b.convolution("conv", b.shift("rsign", x)), b.add("same", same, x, shape=(*SHAPE[:2], 8)))
    rewritten = settled(graph)
    assert additions(rewritten) == 1
    assert_equal(graph, rewritten)


def test_outputs_are_unchanged():
    b = Builder()
    x = stem(b)
    graph = b.graph(x, b.convolution("conv", b.shift("rsign", x)))
    rewritten = settled(graph)
    assert additions(rewritten) == 1
    assert_equal(graph, rewritten)


def test_a_threshold_of_the_batch_median_costs_nothing():
    """A - ω + β, then a scale for each side, then γ: only the shift matters before a sign."""
    b = Builder()
    x = stem(b)
    for k in range(2):
        y = b.affine(f"gamma{k}", b.prelu(f"sides{k}", b.shift(f"median{k}", x)))
        graph_y = b.add(f"positive{k}", Affine(np.linspace(0.5, 2, 32), np.zeros(32)), y)
        x = b.sum(f"add{k}", x, b.convolution(f"conv{k}", graph_y))
    graph = b.graph(b.mean("mean", x))
    rewritten = settled(signs_as_thresholds(graph))
    assert_equal(graph, rewritten)
    assert operators(rewritten) == ["CONV_2D", *["LceQuantize", "LceBconv2d", "ADD"] * 2, "MEAN"]
