"""A pass that quantizes everything real-valued to 8 bits, with ranges calibrated on data.

Each value that a file stores between two operators is rounded to one of 256 levels between its `limits`; kernels of
real-valued convolutions are rounded to 255 levels per filter, other constants to 255 levels per tensor. Signs, and
values between a binary convolution and the sign of its output, are not rounded. Normalizations that no convolution
absorbs are computed in float between rounded values, because rounding would affect their statistics and scales most.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.graph import Graph, Limits, Node, batches
from kbnn.converters.graph.operations import Affine, Opaque, Operation, Pool, Sign, Split
from kbnn.converters.passes.affine import is_binary_output
from kbnn.converters.passes.thresholds import sign_reads


def calibrated(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, Limits]:
    """The range, including zero, of each value that will be rounded, over inputs `(N, ...)` by name.

    Operators with fixed levels, such as softmax, keep them: other levels would round and clip their results once more.
    """
    names = [node.name for node in graph if _is_stored(graph, node)]
    found: dict[str, Limits] = {}
    for batch in batches(inputs):
        values = graph.run({name: tf.constant(array) for name, array in batch.items()})
        for name in names:
            if tf.is_tensor(values[name]) and values[name].dtype == tf.float32:
                low, high = found.get(name, (0.0, 0.0))
                value = values[name].numpy()
                found[name] = (min(low, float(value.min())), max(high, float(value.max())))
    fixed = {name: graph[name].operation.fixed_limits for name in found}
    found |= {name: limits for name, limits in fixed.items() if limits is not None}
    # A value that is always zero still needs two levels.
    return {name: limits if limits[0] < limits[1] else (0.0, 1.0) for name, limits in found.items()}


def in_int8(graph: Graph, limits: Mapping[str, Limits]) -> Graph:
    """The graph, with its values rounded between their limits, and with rounded constants in real-valued layers."""
    first = _first_of_same_levels(graph)
    shared: dict[str, Limits] = {}
    for name, (low, high) in limits.items():
        if name in first:
            lowest, highest = shared.get(first[name], (0.0, 0.0))
            shared[first[name]] = (min(low, lowest), max(high, highest))
    rounds = [
        node for node in graph if node.name in limits or node.operation.moves_values or _is_clipped_later(graph, node)
    ]
    ranges = {node.name: shared.get(first[node.name]) for node in rounds if not isinstance(node.operation, Split)}
    operations = {node.name: _with_rounded_constants(graph, node) for node in graph}
    return graph.with_nodes(
        *(replace(node, operation=operations[node.name], limits=ranges.get(node.name)) for node in graph)
    )


def _first_of_same_levels(graph: Graph) -> dict[str, str]:
    """For each value, the first of the values that must share its levels."""
    first: dict[str, str] = {}
    for node in graph:
        first[node.name] = node.name
        if node.operation.moves_values or _clips_pooled(graph, node):
            same = {first[name] for name in node.inputs}
            leader = first[node.inputs[0]]
            first = {name: leader if group in same else group for name, group in first.items()}
            first[node.name] = leader
    return first


def _is_stored(graph: Graph, node: Node) -> bool:
    """Whether a file stores a node's value, rather than only the result of the next operation."""
    # A part of Keras's graph may put constants between the values that it moves.
    only_moves = node.operation.moves_values and not isinstance(node.operation, Opaque)
    if only_moves or isinstance(node.operation, Sign) or not node.shape:
        return False
    reader = graph.sole_consumer(node.name)
    if reader is None:
        return True
    if reader.operation.is_fused or _is_clipped_later(graph, node):
        return False
    if not is_binary_output(graph, node):
        return True
    # Of a value that only a sign needs, LCE's operator writes the bits.
    return not (isinstance(reader.operation, Affine) or sign_reads(graph, node, lambda between: between.is_max_pool))


def _clips_pooled(graph: Graph, node: Node) -> bool:
    """Whether a node is fused into a pooling operator, and so shares its levels."""
    return node.operation.is_fused and isinstance(graph[node.inputs[0]].operation, Pool)


def _is_clipped_later(graph: Graph, node: Node) -> bool:
    """Whether a value is only max-pooled and then clipped, so that it can be clipped when it is rounded."""
    pool = graph.sole_consumer(node.name)
    if pool is None or not pool.operation.is_max_pool:
        return False
    clip = graph.sole_consumer(pool.name)
    return clip is not None and clip.operation.is_fused


def _with_rounded_constants(graph: Graph, node: Node) -> Operation:
    """A node's operation, with its constants rounded as by the converter."""
    folds = isinstance(node.operation, Affine) and is_binary_output(graph, node)
    return node.operation if folds else node.operation.with_int8_constants()
