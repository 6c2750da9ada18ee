"""Consecutive affine maps become one."""

import numpy as np
from sample_graphs import Builder, assert_equal

from kbnn.converters.deploy.affine import merge_affine
from kbnn.converters.deploy.operations import Affine


def count(graph):
    return sum(isinstance(node.operation, Affine) for node in graph)


def test_three_become_one():
    b = Builder()
    graph = b.graph(b.affine("c", b.affine("b", b.affine("a", "image"))))
    merged = merge_affine(graph)
    assert count(merged) == 1
    assert_equal(graph, merged)


def test_a_value_that_is_read_twice_stays():
    b = Builder()
    first = b.affine("a", "image")
    graph = b.graph(b.sum("sum", first, b.affine("b", first)))
    assert count(merge_affine(graph)) == 2


def test_what_does_nothing_goes():
    b = Builder()
    graph = b.graph(b.sign("sign", b.add("nothing", Affine(np.ones(32), np.zeros(32)), "image")))
    assert [node.name for node in merge_affine(graph)] == ["image", "sign"]


def test_an_output_that_does_nothing_is_its_input():
    b = Builder()
    first = b.prelu("a", "image")
    graph = b.graph(b.add("nothing", Affine(np.ones(32), np.zeros(32)), first))
    merged = merge_affine(graph)
    assert merged.outputs == {"nothing": "a"}
    assert_equal(graph, merged)
