"""Pass: what rises strictly before a sign is a threshold.

sign(f(x)) = sign(x - t), f(t) = 0, for each channel's f that is made of shifts, positive scales (batch normalization,
the batch median's) and PReLUs of positive slope (RPReLU, the batch median's two sides). tanh and clipping keep signs.
Of a layer normalization only the mean matters.
"""

from dataclasses import replace

import larq as lq
import numpy as np
import tensorflow as tf

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import (
    Affine,
    BinaryConvolution,
    Centre,
    Function,
    Normalize,
    Operation,
    PReLU,
    Sign,
)

_KEEP_SIGNS = (lq.activations.hard_tanh, tf.keras.activations.tanh, tf.keras.activations.softsign)


def signs_as_thresholds(graph: Graph) -> Graph:
    """Leaves at most one shift before each sign, and nothing that the shift makes superfluous."""
    for name in list(graph.nodes):
        if name in graph.nodes and isinstance(graph[name].operation, Sign):
            graph = _as_threshold(graph, graph[name])
    return graph


def _as_threshold(graph: Graph, sign: Node) -> Graph:
    """Walks up from a sign as long as nothing else reads the values on the way."""
    threshold, source = np.zeros(sign.channels), graph[sign.inputs[0]]
    while graph.sole_consumer(source.name) is not None:
        moved = _before(source.operation, threshold)
        if moved is None or _folds(graph, source):
            break
        threshold, source = moved, graph[source.inputs[0]]
    if isinstance(source.operation, Normalize) and not np.any(threshold):
        return _centred(graph, sign, source)
    if source.name == sign.inputs[0]:
        return graph
    if not np.any(threshold):
        return graph.with_nodes(replace(sign, inputs=(source.name,)))
    shift = Node(
        graph.unused(f"{sign.layer}/threshold"),
        Affine(np.ones(sign.channels), -threshold),
        (source.name,),
        source.shape,
        sign.layer,
    )
    return graph.with_nodes(shift, replace(sign, inputs=(shift.name,)))


def _centred(graph: Graph, sign: Node, source: Node) -> Graph:
    """The sign of a normalization without offset is that of the distance from the mean."""
    normalize = source.operation
    assert isinstance(normalize, Normalize)  # noqa: S101  (for mypy)
    if np.any(normalize.offset) or not np.all(normalize.scale > 0):
        return graph
    centre = Node(
        graph.unused(f"{sign.layer}/centre"), Centre(normalize.groups), source.inputs, source.shape, sign.layer
    )
    return graph.with_nodes(centre, replace(sign, inputs=(centre.name,)))


def _before(operation: Operation, threshold: np.ndarray) -> np.ndarray | None:
    """The u for which `f(x) >= threshold` is `x >= u`; None where f does not rise strictly."""
    if isinstance(operation, Affine) and np.all(operation.scale > 0):
        return (threshold - operation.offset) / operation.scale
    if isinstance(operation, PReLU) and np.all(operation.slope > 0):
        return np.where(threshold >= 0, threshold, threshold / operation.slope)
    if isinstance(operation, Function) and operation.function in _KEEP_SIGNS and not np.any(threshold):
        return threshold
    return None


def _folds(graph: Graph, node: Node) -> bool:
    """Whether the converter folds an affine map into a binary convolution as it is."""
    return isinstance(node.operation, Affine) and isinstance(graph[node.inputs[0]].operation, BinaryConvolution)
