"""Pass: a shuffle goes where the values before it, or after it, can be held in the other order.

Ungrouped convolutions and dense layers write and read channels in any order, and what lies between works on each
channel alone. Values that a grouped convolution reads or writes, or that are parts of others, keep their order; so do
all that are added to such: PresB-Net's shuffles stay, since each group reads half of what the other one wrote.
"""

from dataclasses import dataclass, replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import (
    Add,
    Affine,
    BinaryConvolution,
    Centre,
    Convolution,
    Dense,
    Function,
    GlobalMean,
    Normalize,
    Operation,
    Pool,
    PReLU,
    Shuffle,
    Sign,
)


@dataclass(frozen=True)
class _Region:
    """Values whose channels are in one order: the nodes that hold them, and those that only read them."""

    holders: frozenset[str]
    readers: frozenset[str]


class _FixedOrderError(Exception):
    """A value of the region has to keep its order."""


def remove_shuffles(graph: Graph) -> Graph:
    """Removes each shuffle that a change of the order before or after it can replace."""
    for name in list(graph.nodes):
        node = graph.nodes.get(name)
        if node is not None and isinstance(node.operation, Shuffle):
            graph = _removed(graph, node, node.operation)
    return graph


def _removed(graph: Graph, shuffle: Node, operation: Shuffle) -> Graph:
    order = operation.order(shuffle.channels)
    try:
        return _held(graph, _region(graph, shuffle.inputs[0], shuffle), shuffle, order)
    except _FixedOrderError:
        pass
    try:
        return _held(graph, _region(graph, shuffle.name, shuffle), shuffle, np.argsort(order))
    except _FixedOrderError:
        return graph


def _region(graph: Graph, start: str, shuffle: Node) -> _Region:
    """All values that have to be in the order of one, seen from one side of a shuffle."""
    holders, readers, waiting = {start}, set(), [start]
    while waiting:
        name = waiting.pop()
        if graph.is_output(name):
            raise _FixedOrderError
        node, found = graph[name], []
        if _keeps_order(node.operation):
            found += list(node.inputs)
        elif node is not shuffle and not _writes_any_order(node.operation):
            raise _FixedOrderError
        for reader in graph.consumers(name):
            if _keeps_order(reader.operation):
                found.append(reader.name)
            elif _reads_any_order(reader.operation):
                readers.add(reader.name)
            elif reader is not shuffle:
                raise _FixedOrderError
        waiting += [other for other in found if other not in holders]
        holders.update(found)
    # Where both sides are one region, its values would need two orders.
    if shuffle.name in holders and shuffle.inputs[0] in holders:
        raise _FixedOrderError
    return _Region(frozenset(holders), frozenset(readers))


def _held(graph: Graph, region: _Region, shuffle: Node, order: np.ndarray) -> Graph:
    """The graph without the shuffle, its region's values in another order: `value[..., order]`."""
    changed = [_reordered(graph[name], order) for name in region.holders if name != shuffle.name]
    held = {node.name: node for node in changed}
    read = [_reading(held.get(name, graph[name]), order) for name in region.readers]
    graph = graph.with_nodes(*changed, *read)
    return graph.without(graph[shuffle.name], None)


def _keeps_order(operation: Operation) -> bool:
    if isinstance(operation, Normalize | Centre):
        return operation.groups == 1
    return isinstance(operation, Add | Affine | PReLU | Pool | GlobalMean | Function | Sign)


def _writes_any_order(operation: Operation) -> bool:
    return isinstance(operation, BinaryConvolution | Convolution) and operation.groups == 1


def _reads_any_order(operation: Operation) -> bool:
    return _writes_any_order(operation) or isinstance(operation, Dense)


def _reordered(node: Node, order: np.ndarray) -> Node:
    """A node that writes its channels in another order."""
    operation = node.operation
    if isinstance(operation, Affine):
        operation = Affine(operation.scale[order], operation.offset[order])
    elif isinstance(operation, PReLU):
        operation = PReLU(operation.slope[order])
    elif isinstance(operation, Normalize):
        operation = replace(operation, scale=operation.scale[order], offset=operation.offset[order])
    elif isinstance(operation, BinaryConvolution):
        operation = replace(operation, filters=operation.filters[order])
    elif isinstance(operation, Convolution):
        operation = replace(operation, kernel=operation.kernel[..., order], bias=operation.bias[order])
    origin = node.origin and replace(node.origin, order=node.origin.order[order], shift=node.origin.shift[order])
    return replace(node, operation=operation, origin=origin)


def _reading(node: Node, order: np.ndarray) -> Node:
    """A node that reads channels in another order."""
    operation = node.operation
    if isinstance(operation, BinaryConvolution):
        operation = replace(operation, rows=operation.rows[:, order])
    elif isinstance(operation, Convolution):
        operation = replace(operation, kernel=operation.kernel[:, :, order])
    elif isinstance(operation, Dense):
        operation = replace(operation, kernel=operation.kernel[order])
    return replace(node, operation=operation)
