"""A pass that moves batch normalization from after max pooling to before it.

max(x)·a + b = max(x·a + b) for a > 0. Before the pooling, it folds into the binary convolution, whose output can then
be bitpacked and pooled as bits.
"""

from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, BinaryConvolution


def affine_before_max_pool(graph: Graph) -> Graph:
    """Swaps each affine map with the preceding max pooling if it then folds into a binary convolution."""
    return graph.rewritten(Affine, _swapped)


def _swapped(graph: Graph, node: Node, affine: Affine) -> Graph:
    pool = graph[node.inputs[0]]
    if not np.all(affine.scale > 0) or not pool.operation.is_max_pool or not _folds(graph, pool):
        return graph
    source = graph[pool.inputs[0]]
    first = Node(graph.unused(f"{node.name}/folded"), affine, (source.name,), source.shape, node.layer)
    # The pooling now computes the value of the affine map, and takes its name.
    return graph.with_nodes(first, replace(node, operation=pool.operation, inputs=(first.name,)))


def _folds(graph: Graph, pool: Node) -> bool:
    source = graph[pool.inputs[0]]
    while isinstance(source.operation, Affine) and graph.sole_consumer(source.name) is not None:
        source = graph[source.inputs[0]]
    alone = graph.sole_consumer(pool.name) is not None and graph.sole_consumer(pool.inputs[0]) is not None
    return alone and isinstance(source.operation, BinaryConvolution)
