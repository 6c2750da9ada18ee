"""Pass: consecutive affine maps become one, and those that do nothing go."""

from dataclasses import replace

from kbnn.converters.deploy.graph import Graph, Node
from kbnn.converters.deploy.operations import Affine


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
