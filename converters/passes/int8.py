"""Pass: everything real-valued in 8 bits, with ranges that real data have.

Each value that a file stores between two operators is rounded to one of 256 levels between its `limits`, kernels of
real convolutions to 255 levels per filter, other constants to as many in all. Signs, and what is computed between a
binary convolution and the sign of it, stay as they are. Normalizations that no convolution takes in are computed in
float, between rounded values: their statistics and their scales per channel would suffer most.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf
from larq.activations import hard_tanh

from kbnn.converters.graph.graph import Graph, Limits, Node
from kbnn.converters.graph.operations import (
    Affine,
    BinaryConvolution,
    Concatenate,
    Convolution,
    Dense,
    Function,
    Operation,
    Pad,
    PadChannels,
    Part,
    Pool,
    PReLU,
    Reshape,
    Shuffle,
    Sign,
    Split,
)
from kbnn.converters.tflite.int8_weights import rounded_kernel

# What moves or picks values: TensorFlow Lite wants the same levels before and after.
_MOVES = (Concatenate, Pad, PadChannels, Part, Pool, Reshape, Shuffle, Split)
# What TensorFlow Lite has as a part of the operator before.
_FUSED = (tf.keras.activations.relu, hard_tanh)


def calibrated(graph: Graph, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Limits]:
    """The smallest and the largest of each value that is to be rounded, and zero, over batches of inputs by name."""
    names = [node.name for node in graph if _is_stored(graph, node)]
    found: dict[str, Limits] = {}
    for batch in batches:
        values = graph.run({name: tf.constant(array) for name, array in batch.items()})
        for name in names:
            if tf.is_tensor(values[name]) and values[name].dtype == tf.float32:
                low, high = found.get(name, (0.0, 0.0))
                value = values[name].numpy()
                found[name] = (min(low, float(value.min())), max(high, float(value.max())))
    # A value that is always zero still needs two levels.
    return {name: limits if limits[0] < limits[1] else (0.0, 1.0) for name, limits in found.items()}


def in_int8(graph: Graph, limits: Mapping[str, Limits]) -> Graph:
    """The graph with its values rounded between their limits, and the kernels of its real-valued layers."""
    first = _first_of_same_levels(graph)
    shared: dict[str, Limits] = {}
    for name, (low, high) in limits.items():
        if name in first:
            lowest, highest = shared.get(first[name], (0.0, 0.0))
            shared[first[name]] = (min(low, lowest), max(high, highest))
    rounds = [
        node
        for node in graph
        if node.name in limits or isinstance(node.operation, _MOVES) or _is_clipped_later(graph, node)
    ]
    ranges = {node.name: shared.get(first[node.name]) for node in rounds if not isinstance(node.operation, Split)}
    operations = {node.name: _with_rounded_constants(graph, node) for node in graph}
    return graph.with_nodes(
        *(replace(node, operation=operations[node.name], limits=ranges.get(node.name)) for node in graph)
    )


def _first_of_same_levels(graph: Graph) -> dict[str, str]:
    """Of each value, the first of those that need the same levels."""
    first: dict[str, str] = {}
    for node in graph:
        first[node.name] = node.name
        if isinstance(node.operation, _MOVES) or _clips_pooled(graph, node):
            same = {first[name] for name in node.inputs}
            leader = first[node.inputs[0]]
            first = {name: leader if group in same else group for name, group in first.items()}
            first[node.name] = leader
    return first


def _is_stored(graph: Graph, node: Node) -> bool:
    """Whether a file holds a node's value as it is, and not only what the next operation makes of it."""
    if isinstance(node.operation, (*_MOVES, Sign)) or not node.shape:
        return False
    reader = graph.sole_consumer(node.name)
    if reader is None:
        return True
    if _is_fused(reader.operation) or _is_clipped_later(graph, node):
        return False
    if not _follows_binary(graph, node):
        return True
    return not (isinstance(reader.operation, Affine) or _becomes_bits(graph, reader))


def _is_fused(operation: Operation) -> bool:
    return isinstance(operation, Function) and operation.function in _FUSED


def _clips_pooled(graph: Graph, node: Node) -> bool:
    """Whether a node is fused into a pooling operator, whose levels it then has."""
    return _is_fused(node.operation) and isinstance(graph[node.inputs[0]].operation, Pool)


def _is_clipped_later(graph: Graph, node: Node) -> bool:
    """Whether a value is pooled and then clipped, and nothing else: it may as well be clipped when it is rounded."""
    pool = graph.sole_consumer(node.name)
    if pool is None or not (isinstance(pool.operation, Pool) and pool.operation.kind == "max"):
        return False
    clip = graph.sole_consumer(pool.name)
    return clip is not None and _is_fused(clip.operation)


def _follows_binary(graph: Graph, node: Node) -> bool:
    while isinstance(node.operation, Affine):
        node = graph[node.inputs[0]]
    return isinstance(node.operation, BinaryConvolution)


def _becomes_bits(graph: Graph, node: Node) -> bool:
    """Whether only the sign of what a node reads is kept, if it is pooled before or not."""
    if isinstance(node.operation, Pool) and node.operation.kind == "max":
        reader = graph.sole_consumer(node.name)
        return reader is not None and _becomes_bits(graph, reader)
    return isinstance(node.operation, Sign)


def _with_rounded_constants(graph: Graph, node: Node) -> Operation:
    """A node's operation with its constants as the converter rounds them: kernels by filter, others all alike."""
    operation = node.operation
    if isinstance(operation, Convolution):
        return replace(operation, kernel=rounded_kernel(operation.kernel))
    if isinstance(operation, Dense):
        return replace(operation, kernel=_rounded_alike(operation.kernel))
    if isinstance(operation, PReLU):
        return PReLU(_rounded_alike(operation.slope))
    if isinstance(operation, Affine) and not _follows_binary(graph, node):
        if operation.is_shift:
            return Affine(operation.scale, _rounded(operation.offset))
        if not np.any(operation.offset):
            return Affine(_rounded(operation.scale), operation.offset)
    return operation


def _rounded_alike(constants: np.ndarray) -> np.ndarray:
    """With levels at equal distances on both sides of zero."""
    return rounded_kernel(constants.reshape(-1, 1)).reshape(constants.shape)


def _rounded(constants: np.ndarray) -> np.ndarray:
    """With levels from the smallest to the largest."""
    low, high = min(0.0, float(constants.min())), max(0.0, float(constants.max()))
    if low == high:
        return constants
    values = tf.constant(constants, tf.float32)
    return np.asarray(tf.quantization.fake_quant_with_min_max_args(values, low, high), np.float64)
