"""Passes: affine maps become one with what is before them, and those that do nothing go."""

from dataclasses import replace

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, Convolution, Dense


def merge_affine(graph: Graph) -> Graph:
    """(x·a + b)·c + d = x·ac + (bc + d), where nothing else reads what is between."""
    for name in list(graph.nodes):
        if name in graph.nodes and isinstance(graph[name].operation, Affine):
            graph = _without_identity(_merged(graph, graph[name]), name)
    return graph


def _merged(graph: Graph, second: Node) -> Graph:
    first = graph[second.inputs[0]]
    if not isinstance(first.operation, Affine) or graph.sole_consumer(first.name) is None:
        return graph
    a, c = first.operation, second.operation
    assert isinstance(c, Affine)  # noqa: S101  (for mypy)
    merged = Affine(a.scale * c.scale, a.offset * c.scale + c.offset)
    return graph.with_nodes(replace(second, operation=merged, inputs=first.inputs))


def _without_identity(graph: Graph, name: str) -> Graph:
    node = graph[name]
    assert isinstance(node.operation, Affine)  # noqa: S101
    return graph.without(node, node.origin) if node.operation.is_identity else graph


def affine_into_kernels(graph: Graph) -> Graph:
    """(W∗x + b)·a + c = aW∗x + (ba + c) for real-valued layers, where nothing else reads what is between.

    The converter would do the same, but loses the name of the value where b and c are zero.
    """
    for name in list(graph.nodes):
        if name in graph.nodes and isinstance(graph[name].operation, Affine):
            graph = _in_kernel(graph, graph[name])
    return graph


def _in_kernel(graph: Graph, node: Node) -> Graph:
    source, affine = graph[node.inputs[0]], node.operation
    layer = source.operation
    assert isinstance(affine, Affine)  # noqa: S101
    if not isinstance(layer, Convolution | Dense) or graph.sole_consumer(source.name) is None:
        return graph
    folded = replace(layer, kernel=layer.kernel * affine.scale, bias=layer.bias * affine.scale + affine.offset)
    return graph.with_nodes(replace(node, operation=folded, inputs=source.inputs, layer=source.layer))
