"""The intermediate form of a network: a graph of simple operations that passes rewrite and the converter reads."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import TypeVar

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.operations import Input, Operation, Shape

# The smallest and the largest of 256 int8 levels; the range includes zero.
Limits = tuple[float, float]

Kind = TypeVar("Kind", bound=Operation)

# Samples per batch.
_BATCH = 16


@dataclass(frozen=True)
class Origin:
    """The Keras value that a node's value corresponds to; `value` names a tensor of the traced graph.

    The node holds `keras[..., order] + shift`. For a sign, `value` is the tensor whose sign Keras takes, and `shift` is
    0.
    """

    value: str
    order: np.ndarray
    shift: np.ndarray

    @staticmethod
    def of(value: str, channels: int) -> "Origin":
        return Origin(value, np.arange(channels), np.zeros(channels))


@dataclass(frozen=True)
class Node:
    """One operation and its value, both called `name`; `shape` is the value's shape without the batch axis.

    `layer` is the Keras layer that the node comes from; `origin` is None if Keras computes no such value. With
    `limits`, the value is rounded to one of 256 levels between them.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: Shape
    layer: str
    origin: Origin | None = None
    limits: Limits | None = None

    @property
    def channels(self) -> int:
        return self.shape[-1]

    def reordered(self, order: np.ndarray) -> "Node":
        """The node if its value is stored as `value[..., order]`; the operation that computes it is unchanged."""
        origin = self.origin and replace(self.origin, order=self.origin.order[order], shift=self.origin.shift[order])
        return replace(self, origin=origin)


@dataclass(frozen=True)
class Graph:
    """Nodes by name, in topological order; `outputs` maps the names of the network's outputs to nodes."""

    nodes: Mapping[str, Node]
    outputs: Mapping[str, str]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def consumers(self, name: str) -> list[Node]:
        """The nodes that read a value."""
        return [node for node in self if name in node.inputs]

    def is_output(self, name: str) -> bool:
        return name in self.outputs.values()

    def sole_consumer(self, name: str) -> Node | None:
        """The only consumer of a value, if it reads the value once and the value is not an output of the network."""
        found = self.consumers(name)
        alone = len(found) == 1 and found[0].inputs.count(name) == 1 and not self.is_output(name)
        return found[0] if alone else None

    def rewritten(self, kind: type[Kind], rewrite: "Callable[[Graph, Node, Kind], Graph]") -> "Graph":
        """The graph after a rewriting of each node whose operation is of a class, in order.

        Args:
            kind: the class of the operations.
            rewrite: rewrites a node with its operation in a graph; it is not called for nodes that it has removed.
        """
        graph = self
        for name in list(self.nodes):
            node = graph.nodes.get(name)
            if node is not None and isinstance(node.operation, kind):
                graph = rewrite(graph, node, node.operation)
        return graph

    def with_nodes(self, *nodes: Node) -> "Graph":
        """A graph with nodes replaced or added, and without nodes that are no longer used."""
        return _ordered({**self.nodes, **{node.name: node for node in nodes}}, self.outputs)

    def redirected(self, old: str, new: str) -> "Graph":
        """A graph in which `new` replaces `old` as an output and as an input of every other node."""
        readers = [
            replace(node, inputs=tuple(new if name == old else name for name in node.inputs))
            for node in self.consumers(old)
            if node.name != new
        ]
        outputs = {key: new if name == old else name for key, name in self.outputs.items()}
        return _ordered({**self.nodes, **{node.name: node for node in readers}}, outputs)

    def without(self, node: Node, origin: Origin | None) -> "Graph":
        """A graph in which a node is replaced by its only input, which gets `origin` if it has none of its own."""
        source = self[node.inputs[0]]
        graph = self.with_nodes(replace(source, origin=source.origin or origin))
        return graph.redirected(node.name, source.name)

    def unused(self, name: str) -> str:
        """`name`, or a name derived from it if a node has it already."""
        return unused_name(name, self.nodes)

    def run(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Computes the value of every node from the network's inputs by name.

        The operations of a node are in a name scope `n0`, `n1`, …, by which they are found again in the converted file:
        the converter cuts names at 50 characters, so the node's own name may not fit.
        """
        values: dict[str, tf.Tensor] = {}
        for k, node in enumerate(self):
            with tf.name_scope(f"n{k}"):
                is_input = isinstance(node.operation, Input)
                value = inputs[node.name] if is_input else node.operation(*(values[name] for name in node.inputs))
                values[node.name] = value if node.limits is None else _rounded(value, node.limits)
        return values


def _rounded(value: tf.Tensor, limits: Limits) -> tf.Tensor:
    """Fake quantization, from which the converter reads the range of an activation."""
    return tf.quantization.fake_quant_with_min_max_args(value, *limits)


Pass = Callable[[Graph], Graph]


def unused_name(name: str, taken: Container[str]) -> str:
    """`name`, or the first of `name_2`, `name_3`, ... that is not taken."""
    candidates = chain([name], (f"{name}_{k}" for k in count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _ordered(nodes: Mapping[str, Node], outputs: Mapping[str, str]) -> Graph:
    ordered: dict[str, Node] = {}
    # Unused inputs stay, as part of the network's signature. Not recursive, because networks can be deep.
    stack = [name for name, node in nodes.items() if isinstance(node.operation, Input)] + list(outputs.values())
    stack.reverse()
    while stack:
        name = stack[-1]
        missing = [] if name in ordered else [read for read in nodes[name].inputs if read not in ordered]
        if missing:
            stack.extend(reversed(missing))
        else:
            ordered.setdefault(name, nodes[name])
            stack.pop()
    return Graph(ordered, dict(outputs))


def build(nodes: Iterable[Node], outputs: Mapping[str, str]) -> Graph:
    """Builds a graph from nodes in any order."""
    return _ordered({node.name: node for node in nodes}, outputs)


def batches(inputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Splits inputs by name into batches of a few samples."""
    size = len(next(iter(inputs.values())))
    for k in range(0, size, _BATCH):
        yield {name: array[k : k + _BATCH] for name, array in inputs.items()}


def simulated(graph: Graph, inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """Runs a graph on any number of samples, and returns the values of the named nodes."""
    parts = []
    for batch in batches(inputs):
        values = graph.run({name: tf.constant(array) for name, array in batch.items()})
        parts.append([values[name].numpy() for name in names])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
