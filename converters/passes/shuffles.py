"""A pass that removes channel shuffles by reordering the channels of the values before or after them.

Ungrouped convolutions and dense layers can read and write channels in any order, and the operations between them work
on each channel separately. Values that a grouped convolution reads or writes, parts of other values, and all values
that are added to these keep their order. PresB-Net's shuffles stay: each group reads half of the other's output.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Operation, Shuffle


class FixedOrderError(Exception):
    """A value's channels cannot be reordered."""


def remove_shuffles(graph: Graph) -> Graph:
    """Removes each shuffle that can be replaced by reordering channels before or after it."""
    return graph.rewritten(Shuffle, _removed)


def _removed(graph: Graph, shuffle: Node, operation: Shuffle) -> Graph:
    order = operation.order_of(shuffle.channels)
    for start, needed in ((shuffle.inputs[0], order), (shuffle.name, np.argsort(order))):
        try:
            changed = _reordered(graph, start, shuffle, needed)
        except FixedOrderError:
            continue
        return graph.with_nodes(*changed.values()).without(graph[shuffle.name], None)
    return graph


def _reordered(graph: Graph, start: str, shuffle: Node, order: np.ndarray) -> Mapping[str, Node]:
    """All nodes that change if a value is stored in another order: those that store it and those that only read it.

    Raises:
        FixedOrderError: one of them cannot change.
    """
    changed: dict[str, Node] = {}
    held, waiting = {start}, [start]
    while waiting:
        name = waiting.pop()
        if graph.is_output(name):
            raise FixedOrderError
        node = changed.get(name, graph[name])
        reached: list[str] = []
        if node.name != shuffle.name:
            permuted = node.operation.permuted(order)
            reached += node.inputs if permuted is not None else ()
            operation = possible(permuted or node.operation.writing(order))
            changed[name] = replace(node.reordered(order), operation=operation)
        for reader in graph.consumers(name):
            if reader.operation.permuted(order) is not None:
                reached.append(reader.name)
            elif reader is not shuffle:
                reader = changed.get(reader.name, reader)
                changed[reader.name] = replace(reader, operation=possible(reader.operation.reading(order)))
        waiting += [other for other in dict.fromkeys(reached) if other not in held]
        held.update(reached)
    # If the change reaches both sides of the shuffle, values would need two orders.
    if {shuffle.name, shuffle.inputs[0]} <= held:
        raise FixedOrderError
    return changed


def possible(operation: Operation | None) -> Operation:
    """The operation.

    Raises:
        FixedOrderError: it is None, because the operation cannot be rewritten for another order.
    """
    if operation is None:
        raise FixedOrderError
    return operation
