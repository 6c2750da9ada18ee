"""A pass that replaces strictly increasing functions before a sign by a threshold.

sign(f(x)) = sign(x - t) with f(t) = 0, if a channel's f consists of shifts, positive scales (batch normalization, batch
median) and PReLUs with a positive slope (RPReLU, the two sides of the batch median). tanh and clipping do not change
signs. Of a layer normalization, only the mean matters.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, BinaryConvolution, Operation, Sign


def signs_as_thresholds(graph: Graph) -> Graph:
    """Leaves at most one shift before each sign, and removes operations that the sign does not need."""
    return graph.rewritten(Sign, _as_threshold)


def _as_threshold(graph: Graph, sign: Node, _: Sign) -> Graph:
    """Walks up from a sign as long as the values have no other reader."""
    threshold, source = np.zeros(sign.channels), graph[sign.inputs[0]]
    while graph.sole_consumer(source.name) is not None:
        moved = source.operation.threshold_before(threshold)
        if moved is None or _folds(graph, source):
            break
        threshold, source = moved, graph[source.inputs[0]]
    if not np.any(threshold):
        return _reading_sign_of(graph, sign, source)
    if source.name == sign.inputs[0]:
        return graph
    name = graph.unused(f"{sign.layer}/threshold")
    shift = Node(name, Affine.shift(-threshold), (source.name,), source.shape, sign.layer)
    return graph.with_nodes(shift, replace(sign, inputs=(shift.name,)))


def _reading_sign_of(graph: Graph, sign: Node, source: Node) -> Graph:
    """The graph with the sign taken of a value, or of a cheaper one with the same sign."""
    cheaper = source.operation.same_sign()
    if cheaper is not source.operation:
        node = Node(graph.unused(f"{sign.layer}/centre"), cheaper, source.inputs, source.shape, sign.layer)
        return graph.with_nodes(node, replace(sign, inputs=(node.name,)))
    return graph if source.name == sign.inputs[0] else graph.with_nodes(replace(sign, inputs=(source.name,)))


def sign_reads(graph: Graph, node: Node, through: Callable[[Operation], bool]) -> bool:
    """Whether a sign is all that reads a value, directly or behind a chain of certain operations.

    Args:
        graph: a graph before or after passes.
        node: the node of the value.
        through: whether an operation may stand before the sign.
    """
    reader = graph.sole_consumer(node.name)
    while reader is not None and not isinstance(reader.operation, Sign):
        reader = graph.sole_consumer(reader.name) if through(reader.operation) else None
    return reader is not None


def _folds(graph: Graph, node: Node) -> bool:
    """Whether the converter folds an affine map into the preceding binary convolution."""
    return isinstance(node.operation, Affine) and isinstance(graph[node.inputs[0]].operation, BinaryConvolution)
