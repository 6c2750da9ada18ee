"""Passes: layer normalization with what stands around it.

Batch normalization after a PReLU is a scale before it and a shift after it, since PReLU(k·x) = k·PReLU(x) for k > 0;
the scale then belongs to the layer normalization, or to the convolution, before the PReLU. For k < 0 and slope s > 0,
k·PReLU_s(x) = PReLU_{1/s}(k·s·x).
"""

from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, Normalize, PReLU


def scale_before_prelu(graph: Graph) -> Graph:
    """Splits each affine map after a PReLU that can be split so."""
    for name in list(graph.nodes):
        after = graph.nodes.get(name)
        if after is not None and isinstance(after.operation, Affine) and not after.operation.is_shift:
            prelu = graph[after.inputs[0]]
            if isinstance(prelu.operation, PReLU) and graph.sole_consumer(prelu.name) is not None:
                graph = _split(graph, prelu, after)
    return graph


def _split(graph: Graph, prelu: Node, after: Node) -> Graph:
    slope, scale = prelu.operation, after.operation
    assert isinstance(slope, PReLU)  # noqa: S101  (for mypy)
    assert isinstance(scale, Affine)  # noqa: S101
    positive = scale.scale > 0
    if not np.all(positive | ((scale.scale < 0) & (slope.slope > 0))):
        return graph
    channels = prelu.channels
    before = np.where(positive, scale.scale, scale.scale * slope.slope)
    slopes = np.where(positive, slope.slope, 1 / np.where(positive, 1.0, slope.slope))
    first = Node(
        graph.unused(f"{prelu.name}/scaled"),
        Affine(before, np.zeros(channels)),
        prelu.inputs,
        prelu.shape,
        prelu.layer,
    )
    # Keras has no such value any more: the PReLU's is scaled.
    second = replace(prelu, operation=PReLU(slopes), inputs=(first.name,), origin=None)
    shift = Affine(np.ones(channels), scale.offset)
    return graph.with_nodes(first, second, replace(after, operation=shift))


def affine_into_normalization(graph: Graph) -> Graph:
    """An affine map right after a normalization becomes its own."""
    for name in list(graph.nodes):
        after = graph.nodes.get(name)
        if after is not None and isinstance(after.operation, Affine):
            before = graph[after.inputs[0]]
            if isinstance(before.operation, Normalize) and graph.sole_consumer(before.name) is not None:
                graph = _merged(graph, before, after)
    return graph


def _merged(graph: Graph, before: Node, after: Node) -> Graph:
    norm, affine = before.operation, after.operation
    assert isinstance(norm, Normalize)  # noqa: S101
    assert isinstance(affine, Affine)  # noqa: S101
    operation = replace(norm, scale=norm.scale * affine.scale, offset=norm.offset * affine.scale + affine.offset)
    return graph.with_nodes(replace(after, operation=operation, inputs=before.inputs))
