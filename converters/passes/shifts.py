"""Pass: constants that are added on the way to a sign or a PReLU are carried by the values themselves.

RSign and the batch median take the sign of x + b. Where x is the residual stream, x + b would cost an addition; so the
stream itself is held as x + b: what computes x adds b in a bias that it has anyway, and everything else that reads x
subtracts b in a bias of its own, or passes the surplus on to what reads it in turn.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import (
    Add,
    Affine,
    Concatenate,
    Convolution,
    Dense,
    GlobalMean,
    Operation,
    PadChannels,
    Part,
    Pool,
    Reshape,
    Shuffle,
    Split,
)


class _NoPlaceError(Exception):
    """A shift meets an operation that can neither take it up nor pass it on."""


def settle_shifts(graph: Graph) -> Graph:
    """Removes every shift that has a place upstream or downstream at no cost."""
    for name in list(graph.nodes):
        node = graph.nodes.get(name)
        if node is not None and _is_shift(node.operation):
            graph = _settled(graph, node)
    return graph


def _settled(graph: Graph, node: Node) -> Graph:
    for attempt in (_moved_up, _moved_down, _moved_before):
        try:
            return attempt(graph, node)
        except _NoPlaceError:
            continue
    return graph


def _moved_up(graph: Graph, node: Node) -> Graph:
    """What the shift reads is held with the shift added; its other readers make up for it."""
    shift, source = _offset(node), node.inputs[0]
    if graph.is_output(source):
        raise _NoPlaceError
    edits = _Edits(graph)
    edits.raise_value(source, shift)
    for reader in graph.consumers(source):
        if reader.name != node.name:
            edits.make_up(reader, source, shift)
    return edits.graph().without(node, node.origin)


def _moved_down(graph: Graph, node: Node) -> Graph:
    """What the shift would write is held without it; its readers make up for it."""
    if graph.is_output(node.name):
        raise _NoPlaceError
    edits = _Edits(graph)
    for reader in graph.consumers(node.name):
        edits.make_up(reader, node.name, -_offset(node))
    origin = node.origin and replace(node.origin, shift=node.origin.shift - _offset(node))
    return edits.graph().without(node, origin)


def _moved_before(graph: Graph, node: Node) -> Graph:
    """The shift of a shuffled or pooled value is one of the value before, if that has a place for it."""
    moving = graph[node.inputs[0]]
    if not isinstance(moving.operation, Shuffle | Pool) or graph.is_output(moving.name):
        raise _NoPlaceError
    shift = _offset(node)
    edits = _Edits(graph)
    for reader in graph.consumers(moving.name):
        if reader.name != node.name:
            edits.make_up(reader, moving.name, shift)
    source = graph[moving.inputs[0]]
    before = shift[_inverse(moving.operation, len(shift))]
    name = graph.unused(f"{node.name}/before")
    first = Node(name, Affine(np.ones(len(shift)), before), (source.name,), source.shape, node.layer)
    origin = moving.origin and replace(moving.origin, shift=moving.origin.shift + shift)
    moved = edits.graph().with_nodes(first, replace(moving, inputs=(name,), origin=origin))
    settled = _settled(moved.without(moved[node.name], node.origin), first)
    if name in settled.nodes:
        raise _NoPlaceError
    return settled


class _Edits:
    """Changed nodes of a graph whose wiring stays."""

    def __init__(self, graph: Graph) -> None:
        self._before = graph
        self._nodes: dict[str, Node] = {}

    def graph(self) -> Graph:
        return self._before.with_nodes(*self._nodes.values())

    def raise_value(self, name: str, shift: np.ndarray) -> None:
        """Makes a node's value larger by `shift`, in the node itself or in what it alone reads."""
        node = self._node(name)
        operation = node.operation
        if isinstance(operation, Affine):
            self._set(node, replace(operation, offset=operation.offset + shift), shift)
        elif isinstance(operation, Convolution | Dense):
            self._set(node, replace(operation, bias=operation.bias + shift), shift)
        elif isinstance(operation, Add):
            self._raise_any(node.inputs, shift)
            self._set(node, operation, shift)
        elif isinstance(operation, Concatenate | Shuffle | Pool | Reshape):
            for source, part in self._shares(node, shift):
                self._raise_alone(source, part)
            self._set(node, operation, shift)
        else:
            raise _NoPlaceError

    def make_up(self, reader: Node, source: str, surplus: np.ndarray) -> None:
        """A node reads a value that is too large by `surplus`: it subtracts it, or passes it on to its own readers."""
        reader = self._node(reader.name)
        operation = reader.operation
        if reader.inputs.count(source) != 1 and not isinstance(operation, Concatenate):
            raise _NoPlaceError
        if isinstance(operation, Affine):
            self._set(reader, replace(operation, offset=operation.offset - operation.scale * surplus))
        elif isinstance(operation, Convolution) and operation.padding == "valid":
            self._set(reader, replace(operation, bias=operation.bias - _convolved(operation, surplus)))
        elif isinstance(operation, Dense):
            self._set(reader, replace(operation, bias=operation.bias - surplus @ operation.kernel))
        elif isinstance(operation, Add):
            self._make_up_in_sum(reader, source, surplus)
        else:
            self._pass_on(reader, _passed(self._before, reader, source, surplus))

    def _make_up_in_sum(self, reader: Node, source: str, surplus: np.ndarray) -> None:
        try:
            self._raise_any([name for name in reader.inputs if name != source], -surplus)
        except _NoPlaceError:
            self._pass_on(reader, surplus)

    def _pass_on(self, node: Node, surplus: np.ndarray) -> None:
        if self._before.is_output(node.name):
            raise _NoPlaceError
        self._set(node, node.operation, surplus)
        for reader in self._before.consumers(node.name):
            self.make_up(reader, node.name, surplus)

    def _raise_any(self, names: list[str] | tuple[str, ...], shift: np.ndarray) -> None:
        """Makes one of several summands larger."""
        for name in names:
            kept = dict(self._nodes)
            try:
                return self._raise_alone(name, shift)
            except _NoPlaceError:
                self._nodes = kept
        raise _NoPlaceError

    def _raise_alone(self, name: str, shift: np.ndarray) -> None:
        if self._before.sole_consumer(name) is None:
            raise _NoPlaceError
        self.raise_value(name, shift)

    def _shares(self, node: Node, shift: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Which part of a shift of a node's value each of its inputs has to bring."""
        operation = node.operation
        if isinstance(operation, Concatenate):
            ends = np.cumsum([self._before[name].channels for name in node.inputs])[:-1]
            yield from zip(node.inputs, np.split(shift, ends), strict=True)
        elif isinstance(operation, Shuffle):
            yield node.inputs[0], shift[_inverse(operation, len(shift))]
        elif isinstance(operation, Pool) or self._before[node.inputs[0]].channels == len(shift):
            yield node.inputs[0], shift
        else:
            raise _NoPlaceError

    def _node(self, name: str) -> Node:
        return self._nodes.get(name, self._before[name])

    def _set(self, node: Node, operation: Operation, shift: np.ndarray | None = None) -> None:
        """Replaces a node's operation, and notes by how much its value differs from before."""
        origin = node.origin
        if shift is not None and origin is not None:
            origin = replace(origin, shift=origin.shift + shift)
        self._nodes[node.name] = replace(node, operation=operation, origin=origin)


def _is_shift(operation: Operation) -> bool:
    return isinstance(operation, Affine) and operation.is_shift


def _offset(node: Node) -> np.ndarray:
    assert isinstance(node.operation, Affine)  # noqa: S101  (for mypy)
    return node.operation.offset


def _inverse(operation: Operation, channels: int) -> np.ndarray:
    """Which output channel each input channel is, of a shuffle or of what leaves channels where they are."""
    return np.argsort(operation.order(channels)) if isinstance(operation, Shuffle) else np.arange(channels)


def _convolved(convolution: Convolution, surplus: np.ndarray) -> np.ndarray:
    """What a constant image of `surplus` adds to each output channel."""
    groups = convolution.groups
    summed = convolution.kernel.sum((0, 1)).reshape(len(surplus) // groups, groups, -1)
    return np.einsum("gc,cgf->gf", surplus.reshape(groups, -1), summed).ravel()


def _passed(graph: Graph, reader: Node, source: str, surplus: np.ndarray) -> np.ndarray:
    """By how much a node's value is too large when its input is."""
    operation = reader.operation
    if isinstance(operation, Pool | GlobalMean | Split):
        return surplus
    if isinstance(operation, Part):
        parts = graph[reader.inputs[0]].operation
        assert isinstance(parts, Split)  # noqa: S101
        return np.split(surplus, parts.parts)[operation.index]
    if isinstance(operation, Shuffle):
        return surplus[operation.order(len(surplus))]
    if isinstance(operation, PadChannels):
        return np.pad(surplus, (operation.before, operation.after))
    if isinstance(operation, Reshape):
        return np.tile(surplus, reader.channels // len(surplus))
    if isinstance(operation, Concatenate):
        parts_of = [surplus if name == source else np.zeros(graph[name].channels) for name in reader.inputs]
        return np.concatenate(parts_of)
    raise _NoPlaceError
