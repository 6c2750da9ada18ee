"""A pass that replaces shuffles between per-group convolutions by SPLIT and CONCATENATION, where the order allows it.

PresB-Net's shuffles interleave the two halves of the channels. TRANSPOSE moves each value separately, in 4.3 M
instructions at 56x56x128 on a Cortex-A72. If a convolution per group reads the channels, only the group of a channel
matters, and the channels of a group may be stored in any order. A shuffle then moves eighths of the channels into one
CONCATENATION per group, in 1.9 M instructions, of which the split into groups would take 0.5 M anyway.

Eighths bring the right channels to each group, but in another order than Keras's. Each further shuffle would need
pieces of half the size, and a block's shortcut adds values in the order with which the block began, which no cheap
operation restores. The next shuffle therefore restores the order with its TRANSPOSE, in 5.1 M instructions instead of
4.3 M and a SPLIT (results/arm_costs.csv). Without XNNPACK, it takes 23 M.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import (
    Concatenate,
    Operation,
    PadChannels,
    Part,
    Reorder,
    Shuffle,
    Split,
)
from kbnn.converters.passes.shuffles import FixedOrderError, possible

_PIECES = 8
_GROUPS = 2


def shuffles_in_pieces(graph: Graph) -> Graph:
    """Rewrites each shuffle of two groups whose values may be stored in another order."""
    return graph.rewritten(Shuffle, _in_pieces_if_possible)


def _in_pieces_if_possible(graph: Graph, node: Node, shuffle: Shuffle) -> Graph:
    if shuffle.groups != _GROUPS or node.channels % _PIECES:
        return graph
    try:
        return _in_pieces(graph, node, shuffle)
    except FixedOrderError:
        return graph


def _in_pieces(graph: Graph, node: Node, shuffle: Shuffle) -> Graph:
    """The graph with one shuffle as a split and a concatenation.

    Raises:
        FixedOrderError: the order of a later value cannot change.
    """
    # The half that a channel comes from, its quarter there and its eighth: the quarter is the group that reads it, the
    # eighth is the group that the convolution's output, which is added to it, comes from.
    numbers = np.arange(node.channels).reshape(2, 2, 2, -1).transpose(1, 2, 0, 3)
    order = np.argsort(shuffle.order_of(node.channels))[numbers.ravel()]
    changed = _Orders(graph, node, order).nodes()
    split = Node(graph.unused(f"{node.name}/pieces"), Split(_PIECES), node.inputs, (), node.layer)
    shape = (*node.shape[:-1], node.channels // _PIECES)
    parts = [
        Node(graph.unused(f"{node.name}/piece{k}"), Part(k, _PIECES), (split.name,), shape, node.layer)
        for k in range(_PIECES)
    ]
    inputs = tuple(parts[k].name for k in numbers[..., 0].ravel() // numbers.shape[-1])
    joined = replace(node.reordered(order), operation=Concatenate(), inputs=inputs)
    return _without_splits(graph.with_nodes(*changed, split, *parts, joined), joined.name)


def _without_splits(graph: Graph, name: str) -> Graph:
    """The graph in which each group is concatenated by itself, if a value is read in groups only."""
    splits = graph.consumers(name)
    pieces = graph[name].inputs
    if not all(isinstance(split.operation, Split) and split.operation.parts == _GROUPS for split in splits):
        return graph
    parts = [part for split in splits for part in graph.consumers(split.name)]
    size = len(pieces) // _GROUPS
    joined: dict[int, str] = {}
    for part in parts:
        index = part.operation.index if isinstance(part.operation, Part) else 0
        if index in joined:
            graph = graph.redirected(part.name, joined[index])
        else:
            joined[index] = part.name
            own = pieces[size * index : size * (index + 1)]
            graph = graph.with_nodes(replace(part, operation=Concatenate(), inputs=own))
    return graph


class _Orders:
    """The order in which each value is stored if one value is reordered, and the operations that this changes.

    A value is stored as `value[..., order]`. Operations that work on each channel separately pass the order on to their
    inputs and readers; convolutions absorb it.
    """

    def __init__(self, graph: Graph, start: Node, order: np.ndarray) -> None:
        self._graph = graph
        self._start = start.name
        self._orders: dict[str, np.ndarray] = {}
        self._operations: dict[str, Operation] = {}
        self._waiting: list[str] = []
        self._joined: dict[str, Node] = {}
        self._hold(start.name, order)
        while self._waiting or self._joined:
            if self._waiting:
                self._spread(self._waiting.pop(0))
            else:
                self._hold_joined(self._joined.pop(next(iter(self._joined))))

    def nodes(self) -> Iterator[Node]:
        """The nodes that change, without the first."""
        for name in {**self._orders, **self._operations}:
            node = self._graph[name]
            node = node.reordered(self._orders[name]) if name in self._orders and node.shape else node
            if name != self._start:
                yield replace(node, operation=self._operations.get(name, node.operation))

    def _operation(self, node: Node) -> Operation:
        return self._operations.get(node.name, node.operation)

    def _hold(self, name: str, order: np.ndarray) -> None:
        """Sets the order of a value, once."""
        if name in self._orders:
            if not np.array_equal(self._orders[name], order):
                raise FixedOrderError
            return
        self._orders[name] = order
        if not _is_identity(order):
            if self._graph.is_output(name):
                raise FixedOrderError
            self._waiting.append(name)

    def _spread(self, name: str) -> None:
        order = self._orders[name]
        if name != self._start:
            self._write(self._graph[name], order)
        for reader in self._graph.consumers(name):
            self._read(reader, name, order)

    def _write(self, node: Node, order: np.ndarray) -> None:
        """Makes an operation compute its value in another order, or read inputs that are stored in it."""
        operation = self._operation(node)
        if isinstance(operation, Concatenate):
            sizes = [self._graph[name].channels for name in node.inputs]
            for source, part in zip(node.inputs, _blocks(order, sizes), strict=True):
                self._hold(source, part)
        elif isinstance(operation, PadChannels):
            inner = node.channels - operation.before - operation.after
            self._hold(node.inputs[0], _blocks(order, [operation.before, inner, operation.after])[1])
        elif isinstance(operation, Split | Part):
            # Parts have channels of the value that is split, whose order must be set first.
            if node.inputs[0] not in self._orders:
                raise FixedOrderError
        else:
            passed, absorbed = operation.permuted(order), operation.writing(order)
            self._operations[node.name] = possible(passed or absorbed)
            for source in node.inputs if passed is not None else ():
                self._hold(source, order)

    def _read(self, reader: Node, name: str, order: np.ndarray) -> None:
        """Makes an operation read a value that is stored in another order."""
        operation = self._operation(reader)
        if isinstance(operation, Concatenate | PadChannels):
            if reader.name not in self._orders:
                self._joined[reader.name] = reader
        elif isinstance(operation, Split):
            self._hold(reader.name, order)
        elif isinstance(operation, Part):
            parts = operation.parts or 1
            self._hold(reader.name, _blocks(order, [len(order) // parts] * parts)[operation.index])
        elif isinstance(operation, Shuffle | Reorder):
            if reader.name == self._start:
                raise FixedOrderError
            self._operations[reader.name] = possible(Reorder.of(np.argsort(order)[operation.order_of(len(order))]))
        elif operation.permuted(order) is not None:
            self._hold(reader.name, order)
        else:
            self._operations[reader.name] = possible(operation.reading(order))

    def _hold_joined(self, node: Node) -> None:
        """Sets the order of a concatenation or a padded value from those of its parts; others keep Keras's order."""
        if node.name in self._orders:
            return
        orders, start = [], 0
        for source in node.inputs:
            channels = self._graph[source].channels
            orders.append(start + self._orders.get(source, np.arange(channels)))
            start += channels
        order = np.concatenate(orders)
        if isinstance(node.operation, PadChannels):
            before, after = node.operation.before, node.operation.after
            order = np.concatenate([np.arange(before), before + order, before + start + np.arange(after)])
        self._hold(node.name, order)


def _is_identity(order: np.ndarray) -> bool:
    return np.array_equal(order, np.arange(len(order)))


def _blocks(order: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The orders of parts of a value.

    Raises:
        FixedOrderError: the order moves channels from one part to another.
    """
    found, start = [], 0
    for size in sizes:
        part = order[start : start + size] - start
        if size and (part.min() < 0 or part.max() >= size):
            raise FixedOrderError
        found.append(part)
        start += size
    return found
