"""Pass: grouped binary convolutions that cannot run as one operator become one convolution per group.

LCE bitpacks a grouped convolution only when each group has a multiple of 32 channels, and its default kernel, the one
in the stock Android library, runs none. The values are split before the sign: split after it, they would be float.
"""

import functools
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node, Pass
from kbnn.converters.graph.operations import Affine, BinaryConvolution, Concatenate, Part, Sign, Split

_CHANNELS_PER_WORD = 32


def split_groups(portable: bool) -> Pass:
    """The pass that splits all grouped convolutions (`portable`), or only those that LCE cannot bitpack."""
    return functools.partial(_split_groups, portable=portable)


def _split_groups(graph: Graph, portable: bool) -> Graph:
    for name in list(graph.nodes):
        node = graph[name]
        if isinstance(node.operation, BinaryConvolution) and node.operation.groups > 1:
            fills_words = node.operation.rows.shape[1] % _CHANNELS_PER_WORD == 0
            if portable or not fills_words:
                graph = _split(graph, node, node.operation)
    return graph


def _split(graph: Graph, node: Node, convolution: BinaryConvolution) -> Graph:
    sign = graph[node.inputs[0]]
    after = graph.sole_consumer(node.name)
    affine = after if after is not None and isinstance(after.operation, Affine) else None
    parts = Node(graph.unused(f"{node.layer}/groups"), Split(convolution.groups), sign.inputs, (), node.layer)
    added, ends = [parts], []
    for k in range(convolution.groups):
        chain = _group(parts, sign, node, affine, k, convolution.groups)
        added += chain
        ends.append(chain[-1].name)
    last = affine or node
    return graph.with_nodes(*added, replace(last, operation=Concatenate(), inputs=tuple(ends)))


def _group(parts: Node, sign: Node, node: Node, affine: Node | None, index: int, groups: int) -> list[Node]:
    """One group by itself: its channels, their signs, the convolution, and what follows it."""
    name = f"{node.layer}/group{index}"
    own = _share(np.arange(sign.channels), index, groups)
    part = Node(f"{name}/values", Part(index), (parts.name,), (*sign.shape[:-1], len(own)), node.layer)
    origin = sign.origin and replace(sign.origin, order=sign.origin.order[own], shift=sign.origin.shift[own])
    bits = Node(f"{name}/sign", Sign(), (part.name,), part.shape, node.layer, origin)
    whole = node.operation
    assert isinstance(whole, BinaryConvolution)  # noqa: S101  (for mypy)
    filters = _share(whole.filters, index, groups)
    convolution = replace(whole, rows=whole.rows[index : index + 1], filters=filters)
    products = Node(f"{name}/conv", convolution, (bits.name,), (*node.shape[:-1], len(filters)), node.layer)
    if affine is None:
        return [part, bits, products]
    maps = affine.operation
    assert isinstance(maps, Affine)  # noqa: S101
    scaled = Affine(_share(maps.scale, index, groups), _share(maps.offset, index, groups))
    return [part, bits, products, Node(f"{name}/scaled", scaled, (products.name,), products.shape, node.layer)]


def _share(values: np.ndarray, index: int, groups: int) -> np.ndarray:
    return np.split(values, groups)[index]
