"""Consecutive affine maps are merged into one."""

from dataclasses import replace

import numpy as np
from sample_graphs import Builder, assert_equal

from kbnn.converters.graph.operations import Add, Affine, Convolution, Dense, Kept
from kbnn.converters.passes.affine import affine_into_sums, keep_scales_before_dense, merge_affine


def count(graph):
    return sum(isinstance(node.operation, Affine) for node in graph)


def test_three_become_one():
    b = Builder()
    graph = b.graph(b.affine("c", b.affine("b", b.affine("a", "image"))))
    merged = merge_affine(graph)
    assert count(merged) == 1
    assert_equal(graph, merged)


def test_a_value_with_two_readers_stays():
    b = Builder()
    first = b.affine("a", "image")
    graph = b.graph(b.sum("sum", first, b.affine("b", first)))
    assert count(merge_affine(graph)) == 2


def test_operations_without_effect_are_removed():
    b = Builder()
    graph = b.graph(b.sign("sign", b.add("nothing", Affine(np.ones(32), np.zeros(32)), "image")))
    assert [node.name for node in merge_affine(graph)] == ["image", "sign"]


def test_an_output_without_effect_is_its_input():
    b = Builder()
    first = b.prelu("a", "image")
    graph = b.graph(b.add("nothing", Affine(np.ones(32), np.zeros(32)), first))
    merged = merge_affine(graph)
    assert merged.outputs == {"nothing": "a"}
    assert_equal(graph, merged)


def test_an_affine_map_is_folded_into_a_real_convolution_that_takes_its_name():
    b = Builder()
    kernel, bias = b.random.normal(size=(3, 3, 32, 32)), b.random.normal(size=32)
    convolution = b.add("conv", Convolution(kernel, bias, (1, 1), (1, 1), "same"), "image")
    graph = b.graph(b.affine("bn", convolution))
    folded = merge_affine(graph)
    assert [node.name for node in folded] == ["image", "bn"]
    assert folded["bn"].layer == "conv"
    assert_equal(graph, folded)


def test_a_convolution_with_two_readers_keeps_its_kernel():
    b = Builder()
    kernel = b.random.normal(size=(3, 3, 32, 32))
    first = b.add("conv", Convolution(kernel, np.zeros(32), (1, 1), (1, 1), "same"), "image")
    graph = b.graph(b.sum("sum", first, b.affine("bn", first)))
    assert merge_affine(graph).nodes == graph.nodes


def test_a_map_moves_into_both_parts_of_a_sum_only_within_a_layer():
    b = Builder()
    total = b.sum("total", b.affine("x", "image"), b.affine("y", "image"))
    graph = b.graph(b.affine("out", total))
    assert isinstance(affine_into_sums(graph)["out"].operation, Affine)
    b.nodes = [replace(node, layer="layer") if node.name in ("x", "y", "total") else node for node in b.nodes]
    within = b.graph("out")
    spread = affine_into_sums(within)
    assert isinstance(spread["out"].operation, Add)
    assert_equal(within, spread)


def dense(b, name, source):
    return b.add(name, Dense(b.random.normal(size=(32, 4)), np.zeros(4)), source, shape=(4,))


def test_a_scale_per_channel_is_kept_out_of_a_dense_layer():
    b = Builder()
    graph = b.graph(dense(b, "dense", b.affine("bn", b.mean("mean", "image"))))
    kept = keep_scales_before_dense(graph)
    assert [type(node.operation) for node in kept][2:] == [Affine, Kept, Dense]
    assert_equal(graph, kept)


def test_a_common_scale_before_a_dense_layer_needs_no_operator():
    b = Builder()
    graph = b.graph(dense(b, "dense", b.add("scale", Affine(np.full(32, 2.0), np.zeros(32)), b.mean("mean", "image"))))
    assert keep_scales_before_dense(graph) is graph
