"""Passes that merge affine maps into the preceding operation, and remove those that do nothing."""

from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Add, Affine


def merge_affine(graph: Graph) -> Graph:
    """Computes f(x)·a + b as one operation if nothing else reads f(x).

    (x·c + d)·a + b = x·ac + (ad + b), and for real-valued layers, a·(W∗x + c) + b = aW∗x + (ac + b). The converter
    would do the latter itself, but it loses the name of the value if the constants are zero.
    """
    for name in list(graph.nodes):
        node = graph.nodes.get(name)
        if node is not None and isinstance(node.operation, Affine):
            graph = _merged(graph, node, node.operation)
    return graph


def _merged(graph: Graph, node: Node, affine: Affine) -> Graph:
    if affine.is_identity:
        return graph.without(node, node.origin)
    source = graph[node.inputs[0]]
    merged = source.operation.then_affine(affine.scale, affine.offset)
    if merged is None or graph.sole_consumer(source.name) is None:
        return graph
    layer = source.layer if merged.convolves else node.layer
    graph = graph.with_nodes(replace(node, operation=merged, inputs=source.inputs, layer=layer))
    done = isinstance(merged, Affine) and merged.is_identity
    return graph.without(graph[node.name], node.origin) if done else graph


def affine_into_sums(graph: Graph) -> Graph:
    """Replaces (x + y)·a + b by (x·a + b) + y·a if x and y are parts of one layer, which can then absorb the map."""
    for name in list(graph.nodes):
        node = graph.nodes.get(name)
        if node is not None and isinstance(node.operation, Affine):
            graph = _in_sum(graph, node, node.operation)
    return graph


def _in_sum(graph: Graph, node: Node, affine: Affine) -> Graph:
    total = graph[node.inputs[0]]
    within = all(graph[name].layer == total.layer for name in total.inputs)
    if not isinstance(total.operation, Add) or not within or graph.sole_consumer(total.name) is None:
        return graph
    parts = []
    for k, name in enumerate(total.inputs):
        scaled = Affine(affine.scale, affine.offset if k == 0 else np.zeros_like(affine.offset))
        parts.append(Node(f"{name}/scaled", scaled, (name,), node.shape, total.layer))
    return graph.with_nodes(*parts, replace(node, operation=Add(), inputs=tuple(part.name for part in parts)))
