"""Passes that split grouped binary convolutions into one convolution per group if they cannot run as one operator.

LCE bitpacks a grouped convolution only if each group has a multiple of 32 channels. LCE's default kernel, which is the
one in Android's stock library, does not support groups. The values are split before the sign; if they were split after
it, they would be float.
"""

from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, BinaryConvolution, Concatenate, Part, Sign, Split
from kbnn.converters.tflite.lce import CHANNELS_PER_WORD


def split_groups(graph: Graph) -> Graph:
    """Splits all grouped binary convolutions, for the portable form."""
    return graph.rewritten(BinaryConvolution, _split)


def split_unpackable_groups(graph: Graph) -> Graph:
    """Splits the grouped binary convolutions that LCE cannot bitpack."""
    return graph.rewritten(BinaryConvolution, _split_unpackable)


def _split_unpackable(graph: Graph, node: Node, convolution: BinaryConvolution) -> Graph:
    return _split(graph, node, convolution) if convolution.rows.shape[1] % CHANNELS_PER_WORD else graph


def _split(graph: Graph, node: Node, convolution: BinaryConvolution) -> Graph:
    if convolution.groups == 1:
        return graph
    sign = graph[node.inputs[0]]
    after = graph.sole_consumer(node.name)
    affine = after.operation if after is not None and isinstance(after.operation, Affine) else None
    parts = Node(graph.unused(f"{_prefix(node)}/groups"), Split(convolution.groups), sign.inputs, (), node.layer)
    added, ends = [parts], []
    for k in range(convolution.groups):
        chain = _group(parts, sign, node, convolution, affine, k)
        added += chain
        ends.append(chain[-1].name)
    last = after if after is not None and affine is not None else node
    return graph.with_nodes(*added, replace(last, operation=Concatenate(), inputs=tuple(ends)))


def _group(
    parts: Node, sign: Node, node: Node, whole: BinaryConvolution, affine: Affine | None, index: int
) -> list[Node]:
    """The nodes of one group: its channels, their signs, the convolution, and the affine map after it."""
    name, layer = f"{_prefix(node)}/group{index}", node.layer

    def share(values: np.ndarray) -> np.ndarray:
        return np.split(values, whole.groups)[index]

    own = share(np.arange(sign.channels))
    part = Node(f"{name}/values", Part(index, whole.groups), (parts.name,), (*sign.shape[:-1], len(own)), layer)
    origin = sign.origin and replace(sign.origin, order=sign.origin.order[own], shift=sign.origin.shift[own])
    bits = Node(f"{name}/sign", Sign(), (part.name,), part.shape, layer, origin)
    convolution = replace(whole, rows=whole.rows[index : index + 1], filters=share(whole.filters))
    products = Node(f"{name}/conv", convolution, (bits.name,), (*node.shape[:-1], len(convolution.filters)), layer)
    if affine is None:
        return [part, bits, products]
    scaled = Affine(share(affine.scale), share(affine.offset))
    return [part, bits, products, Node(f"{name}/scaled", scaled, (products.name,), products.shape, layer)]


def _prefix(node: Node) -> str:
    """The prefix of new names; a layer may have several binary convolutions."""
    return node.name.removesuffix("/conv")
