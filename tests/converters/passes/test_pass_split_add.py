"""A value that is padded to twice its channels is added to half of them."""

import pytest
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import PadChannels
from kbnn.converters.passes.split_add import split_before_add


@pytest.mark.parametrize("sides", [(0, 32), (32, 0)], ids=["first half", "second half"])
@pytest.mark.parametrize("swapped", [False, True])
def test_half_of_the_channels_is_added_to(sides, swapped):
    b = Builder((6, 6, 64))
    y = b.add("pad", PadChannels(*sides), b.convolution("conv", "image", filters=32), shape=(6, 6, 64))
    graph = b.graph(b.sum("sum", *(("image", y) if swapped else (y, "image"))))
    rewritten = split_before_add(graph)
    assert_equal(graph, rewritten)
    assert operators(graph)[-2:] == ["PAD", "ADD"]
    assert sorted(operators(rewritten)) == sorted(["SPLIT", "LceQuantize", "LceBconv2d", "ADD", "CONCATENATION"])


@pytest.mark.parametrize("sides", [(16, 16), (0, 64)], ids=["both sides", "a third"])
def test_other_padding_stays(sides):
    b = Builder((6, 6, 32 + sum(sides)))
    y = b.add("pad", PadChannels(*sides), b.convolution("conv", "image", filters=32), shape=(6, 6, 32 + sum(sides)))
    graph = b.graph(b.sum("sum", "image", y))
    assert split_before_add(graph) is graph


def test_padding_with_other_readers_stays():
    b = Builder((6, 6, 64))
    y = b.add("pad", PadChannels(0, 32), b.convolution("conv", "image", filters=32), shape=(6, 6, 64))
    graph = b.graph(b.sum("sum", "image", y), b.prelu("act", y))
    assert split_before_add(graph) is graph
