"""Grouped binary convolutions as one operator per group."""

import pytest
import sample_networks
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.passes.groups import split_groups, split_unpackable_groups


def test_a_portable_file_has_no_grouped_operator():
    b = Builder((6, 6, 64))
    graph = b.graph(b.convolution("conv", "image", filters=64, groups=2))
    split = split_groups(graph)
    assert_equal(graph, split)
    assert operators(graph) == ["LceQuantize", "LceBconv2d"]
    assert sorted(operators(split)) == sorted(["SPLIT", *["LceQuantize", "LceBconv2d"] * 2, "CONCATENATION"])


@pytest.mark.parametrize("rewrite", [split_groups, split_unpackable_groups])
def test_groups_that_do_not_fill_words_are_always_split(rewrite):
    b = Builder((6, 6, 64))
    graph = b.graph(b.convolution("conv", "image", filters=64, groups=4))
    split = rewrite(graph)
    assert_equal(graph, split)
    assert operators(split).count("LceBconv2d") == 4


def test_groups_that_fill_words_stay_one_operator():
    b = Builder((6, 6, 64))
    graph = b.graph(b.convolution("conv", "image", filters=64, groups=2))
    assert split_unpackable_groups(graph) is graph


@pytest.mark.slow
def test_both_forms_of_a_file_are_equal_to_keras():
    model = sample_networks.single(sample_networks.grouped(64, groups=2), (6, 6, 64))
    grouped = sample_networks.parity(model, sample_networks.deployed(model))
    portable = sample_networks.parity(model, sample_networks.deployed(model, kernel="portable"))
    assert grouped.passed
    assert portable.passed
    assert [run.kernel for run in grouped.runs if run.refused is None] == ["indirect", "reference"]
    assert [run.kernel for run in portable.runs if run.refused is None] == ["default", "indirect", "reference"]
    assert portable.kernels[0].bits == 9 * 32 * 64
