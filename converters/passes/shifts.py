"""A pass that moves constants added before a sign or a PReLU into existing biases.

RSign and the batch median take the sign of x + b. If x is the residual stream, x + b would cost an addition. Instead,
the stream itself stores x + b: the operations that compute x add b in a bias that they have anyway, and every other
reader of x subtracts b in its own bias, or passes the surplus on to its readers.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, Operation


class _NoPlaceError(Exception):
    """An operation can neither absorb a shift nor pass it on."""


def settle_shifts(graph: Graph) -> Graph:
    """Removes every shift that operations before or after it can absorb at no cost."""
    return graph.rewritten(Affine, _settled)


def _settled(graph: Graph, node: Node, affine: Affine) -> Graph:
    for attempt in (_moved_up, _moved_down, _moved_before) if affine.is_shift else ():
        try:
            return attempt(graph, node, affine.offset)
        except _NoPlaceError:
            continue
    return graph


def _moved_up(graph: Graph, node: Node, shift: np.ndarray) -> Graph:
    """Adds the shift to the value that it reads; the other readers of that value compensate."""
    source = node.inputs[0]
    if graph.is_output(source):
        raise _NoPlaceError
    edits = _Edits(graph)
    edits.raise_value(source, shift)
    for reader in graph.consumers(source):
        if reader.name != node.name:
            edits.compensate(reader, source, shift)
    return edits.graph().without(node, node.origin)


def _moved_down(graph: Graph, node: Node, shift: np.ndarray) -> Graph:
    """Leaves out the shift; the readers of its result compensate."""
    if graph.is_output(node.name):
        raise _NoPlaceError
    edits = _Edits(graph)
    for reader in graph.consumers(node.name):
        edits.compensate(reader, node.name, -shift)
    origin = node.origin and replace(node.origin, shift=node.origin.shift - shift)
    return edits.graph().without(node, origin)


def _moved_before(graph: Graph, node: Node, shift: np.ndarray) -> Graph:
    """Moves the shift of a shuffled or pooled value before the shuffle or pooling, if it can be absorbed there."""
    moving = graph[node.inputs[0]]
    if len(moving.inputs) != 1 or graph.is_output(moving.name):
        raise _NoPlaceError
    source = graph[moving.inputs[0]]
    ways = moving.operation.ways_to_raise(shift, [source.channels])
    if not ways or source.channels != moving.channels:
        raise _NoPlaceError
    edits = _Edits(graph)
    for reader in graph.consumers(moving.name):
        if reader.name != node.name:
            edits.compensate(reader, moving.name, shift)
    name = graph.unused(f"{node.name}/before")
    moved_shift = Affine.shift(ways[0][0])
    first = Node(name, moved_shift, (source.name,), source.shape, node.layer)
    origin = moving.origin and replace(moving.origin, shift=moving.origin.shift + shift)
    moved = edits.graph().with_nodes(first, replace(moving, inputs=(name,), origin=origin))
    settled = _settled(moved.without(moved[node.name], node.origin), first, moved_shift)
    if name in settled.nodes:
        raise _NoPlaceError
    return settled


class _Edits:
    """Changed nodes of a graph whose connections do not change."""

    def __init__(self, graph: Graph) -> None:
        self._before = graph
        self._nodes: dict[str, Node] = {}

    def graph(self) -> Graph:
        return self._before.with_nodes(*self._nodes.values())

    def raise_value(self, name: str, shift: np.ndarray) -> None:
        """Increases a node's value by `shift`, in the node itself or in values that only this node reads."""
        node = self._node(name)
        raised = node.operation.raised(shift)
        if raised is None:
            self._raise_inputs(node, shift)
        self._set(node, raised or node.operation, shift)

    def compensate(self, reader: Node, source: str, surplus: np.ndarray) -> None:
        """Makes a node that reads a value increased by `surplus` subtract it, or pass it on to its own readers."""
        reader = self._node(reader.name)
        compensated = reader.operation.compensated(surplus)
        if compensated is not None:
            return self._set(reader, compensated)
        passed = self._passed(reader, source, surplus)
        try:
            self._raise_inputs(reader, -passed, without=source)
        except _NoPlaceError:
            self._pass_on(reader, passed)

    def _passed(self, reader: Node, source: str, surplus: np.ndarray) -> np.ndarray:
        """The surplus of a node's value that results from the surplus of one of its inputs."""
        channels = self._channels(reader)
        places = [k for k, name in enumerate(reader.inputs) if name == source]
        shares = [reader.operation.surplus(surplus, k, channels) for k in places]
        known = [share for share in shares if share is not None]
        if len(known) < len(shares):
            raise _NoPlaceError
        return np.sum(known, axis=0)

    def _pass_on(self, node: Node, surplus: np.ndarray) -> None:
        if self._before.is_output(node.name):
            raise _NoPlaceError
        self._set(node, node.operation, surplus)
        for reader in self._before.consumers(node.name):
            self.compensate(reader, node.name, surplus)

    def _raise_inputs(self, node: Node, shift: np.ndarray, without: str | None = None) -> None:
        """Increases a node's value by `shift` through its inputs, in one of the ways that its operation offers."""
        for way in node.operation.ways_to_raise(shift, self._channels(node)):
            if any(node.inputs[source] == without for source in way):
                continue
            kept = dict(self._nodes)
            try:
                for source, share in way.items():
                    self._raise_alone(node.inputs[source], share)
                return
            except _NoPlaceError:
                self._nodes = kept
        raise _NoPlaceError

    def _raise_alone(self, name: str, shift: np.ndarray) -> None:
        if self._before.sole_consumer(name) is None:
            raise _NoPlaceError
        self.raise_value(name, shift)

    def _channels(self, node: Node) -> Sequence[int]:
        """The number of channels of each input; 0 for a split, whose value is a list of parts."""
        shapes = [self._before[name].shape for name in node.inputs]
        return [shape[-1] if shape else 0 for shape in shapes]

    def _node(self, name: str) -> Node:
        return self._nodes.get(name, self._before[name])

    def _set(self, node: Node, operation: Operation, shift: np.ndarray | None = None) -> None:
        """Replaces a node's operation, and records by how much its value changes."""
        origin = node.origin
        if shift is not None and origin is not None:
            origin = replace(origin, shift=origin.shift + shift)
        self._nodes[node.name] = replace(node, operation=operation, origin=origin)
