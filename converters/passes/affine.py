"""Passes that merge affine maps into the preceding operation, or keep them out of the following one."""

from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Add, Affine, BinaryConvolution, Dense, Kept, Opaque, Reshape


def merge_affine(graph: Graph) -> Graph:
    """Computes f(x)·a + b as one operation if nothing else reads f(x).

    (x·c + d)·a + b = x·ac + (ad + b), and for real-valued layers, a·(W∗x + c) + b = aW∗x + (ac + b). The converter
    would do the latter itself, but it loses the name of the value if the constants are zero.
    """
    return graph.rewritten(Affine, _merged)


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
    return graph.rewritten(Affine, _in_sum)


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


def keep_scales_before_dense(graph: Graph) -> Graph:
    """Keeps a scale per channel out of the matrix product that reads it, for weights that are stored as integers.

    LCE's converter would multiply the float weights with it, and the rounded products are not Keras's rounded weights.
    A scale that a binary convolution can absorb moves there; others are followed by an operator that does nothing.
    """
    for name in list(graph.nodes):
        node = graph[name]
        for source in dict.fromkeys(node.inputs if _multiplies_matrices(node) else ()):
            affine = graph[source]
            is_scale = isinstance(affine.operation, Affine) and np.ptp(affine.operation.scale) > 0.0
            if is_scale and not is_binary_output(graph, affine):
                graph = _kept(graph, node.name, affine)
    return graph


def _multiplies_matrices(node: Node) -> bool:
    operation = node.operation
    if isinstance(operation, Opaque):
        return any("MatMul" in inner.op for inner in operation.graph_def.node)
    return isinstance(operation, Dense)


def _kept(graph: Graph, reader: str, node: Node) -> Graph:
    flat = graph[node.inputs[0]]
    if isinstance(flat.operation, Reshape) and graph.sole_consumer(flat.name) is not None:
        wide = graph[flat.inputs[0]]
        is_alone = graph.sole_consumer(wide.name) is not None
        if is_alone and is_binary_output(graph, wide) and wide.channels == node.channels:
            before = Node(graph.unused(f"{node.name}/affine"), node.operation, flat.inputs, wide.shape, node.layer)
            graph = graph.with_nodes(before, replace(node, operation=flat.operation, inputs=(before.name,)))
            return merge_affine(graph)
    kept = Node(graph.unused(f"{node.name}/kept"), Kept(), (node.name,), node.shape, node.layer)
    inputs = tuple(kept.name if name == node.name else name for name in graph[reader].inputs)
    return graph.with_nodes(kept, replace(graph[reader], inputs=inputs))


def is_binary_output(graph: Graph, node: Node) -> bool:
    """Whether a value is that of a binary convolution, followed by affine maps that the converter folds into it."""
    while isinstance(node.operation, Affine) and graph.sole_consumer(node.inputs[0]) is not None:
        node = graph[node.inputs[0]]
    return isinstance(node.operation, BinaryConvolution)
