"""Every other shuffle of two groups becomes SPLIT and CONCATENATION."""

import numpy as np
import pytest
import sample_networks
from sample_graphs import Builder, assert_equal, operators

from kbnn import models
from kbnn.converters import convert
from kbnn.converters.graph.operations import Concatenate, Convolution, PadChannels, Reorder, Shuffle
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.passes.groups import split_groups
from kbnn.converters.passes.shuffle_pieces import shuffles_in_pieces
from kbnn.converters.passes.split_add import split_before_add

CHANNELS = 64


def half_block(b, x, k):
    """PresB-Net's half block, without the operations that treat each channel separately."""
    x = b.add(f"shuffle{k}", Shuffle(2), x)
    y = b.prelu(f"act{k}", b.convolution(f"conv{k}", x, CHANNELS // 2, groups=2))
    y = b.add(f"pad{k}", PadChannels(0, CHANNELS // 2), y, shape=(6, 6, CHANNELS))
    return b.rprelu(f"out{k}", b.sum(f"sum{k}", x, y))


def shuffles(graph):
    return [type(node.operation) for node in graph if isinstance(node.operation, Shuffle | Reorder)]


@pytest.mark.parametrize("before", [split_groups, lambda graph: split_groups(split_before_add(graph))])
def test_a_block_with_its_shortcut(before):
    b = Builder((6, 6, CHANNELS))
    x = half_block(b, half_block(b, "image", 1), 2)
    graph = before(b.graph(b.sum("block", x, "image")))
    rewritten = shuffles_in_pieces(graph)
    assert shuffles(rewritten) == [Reorder]
    assert_equal(graph, rewritten)
    assert (operators(graph).count("TRANSPOSE"), operators(rewritten).count("TRANSPOSE")) == (2, 1)


def test_each_group_is_concatenated_by_itself():
    b = Builder((6, 6, CHANNELS))
    graph = split_groups(split_before_add(b.graph(half_block(b, half_block(b, "image", 1), 2))))
    found = operators(shuffles_in_pieces(graph))
    # Two per half block, for groups and sum, and two for the groups of pieces. The first half block has only the SPLIT
    # into pieces left.
    assert found.count("CONCATENATION") == 6
    assert found.count("SPLIT") == 2


def test_an_expanding_block():
    b = Builder((6, 6, CHANNELS))
    x = b.add("shuffle1", Shuffle(2), "image")
    y = b.affine("bn", b.convolution("conv1", x, CHANNELS, groups=2))
    twice = b.add("twice", Concatenate(), x, x, shape=(6, 6, 2 * CHANNELS))
    y = b.add("pad", PadChannels(0, CHANNELS), y, shape=(6, 6, 2 * CHANNELS))
    x = b.add("shuffle2", Shuffle(2), b.sum("sum", y, twice))
    graph = split_groups(b.graph(b.convolution("conv2", x, 32, groups=2)))
    rewritten = shuffles_in_pieces(graph)
    assert shuffles(rewritten) == [Reorder]
    assert_equal(graph, rewritten)


def test_without_a_second_shuffle_the_first_stays():
    b = Builder((6, 6, CHANNELS))
    graph = split_groups(b.graph(half_block(b, "image", 1)))
    assert shuffles_in_pieces(graph) is graph


def test_grouped_convolutions_keep_the_shuffle():
    b = Builder((6, 6, CHANNELS))
    graph = b.graph(half_block(b, half_block(b, "image", 1), 2))
    assert shuffles_in_pieces(graph) is graph


def test_a_real_grouped_convolution_keeps_the_shuffle():
    b = Builder((6, 6, CHANNELS))
    x = b.add("shuffle", Shuffle(2), "image")
    kernel = b.random.normal(size=(1, 1, CHANNELS // 2, CHANNELS))
    graph = b.graph(b.add("real", Convolution(kernel, np.zeros(CHANNELS), (1, 1), (1, 1), "valid", 2), x))
    assert shuffles_in_pieces(graph) is graph


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 4, 2, 5], [0, 4, 1, 5, 2, 6, 3, 7]])
def test_orders_that_one_transposition_makes(order):
    found = Reorder.of(np.array(order))
    assert found is not None
    values = np.random.default_rng(0).normal(size=(1, 2, 3, len(order)))
    np.testing.assert_array_equal(found(values), values[..., order])


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [0, 1, 3, 2], [1, 0, 2, 3], [0, 2, 3, 1]])
def test_other_orders_give_none(order):
    assert Reorder.of(np.array(order)) is None


@pytest.mark.slow
def test_a_presbnet_on_a_pi(tmp_path):
    model = models.build("presb10", input_shape=(16, 16, 3), classes=5, width=0.5, blocks=(2, 1), stem="cifar")
    model = sample_networks.shaken(model)
    artifacts = [
        convert(model, tmp_path / "m.tflite", sample_networks.images(model), kernel="portable", device=device)
        for device in ("generic", "pi4")
    ]
    assert all(artifact.parity.passed for artifact in artifacts)
    assert [artifact.audit.operators["TRANSPOSE"] for artifact in artifacts] == [6, 3]
    # Halving the image does not stop the pass: no shuffle of all channels is left.
    graph = deploy(Reference(model), Options(kernel="portable", device="pi4"))
    assert not [node.name for node in graph if isinstance(node.operation, Shuffle)]
