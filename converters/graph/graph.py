"""The intermediate form of a network: simple operations, which passes rewrite and the converter reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.operations import Input, Operation, Shape

# The smallest and the largest value of 256 levels, zero among them.
Limits = tuple[float, float]

# Samples that are run at a time.
_BATCH = 16


@dataclass(frozen=True)
class Origin:
    """Where a node's value is found in Keras: `value` names a tensor of the traced graph.

    The node holds `keras[..., order] + shift`; for a sign, `value` is what Keras takes the sign of, and `shift` is 0.
    """

    value: str
    order: np.ndarray
    shift: np.ndarray

    @staticmethod
    def of(value: str, channels: int) -> "Origin":
        return Origin(value, np.arange(channels), np.zeros(channels))


@dataclass(frozen=True)
class Node:
    """One operation. Its `name` is also its value's; `shape` is the value's without the batch.

    `layer` is the Keras layer that it comes from; `origin` is None where Keras has no such value. With `limits`, the
    value is rounded to one of 256 levels between them.
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


@dataclass(frozen=True)
class Graph:
    """Nodes by name, in an order in which each can be computed; `outputs` maps the network's output names to nodes."""

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
        """The only node that reads a value, if it reads it once and the network does not return the value."""
        found = self.consumers(name)
        alone = len(found) == 1 and found[0].inputs.count(name) == 1 and not self.is_output(name)
        return found[0] if alone else None

    def with_nodes(self, *nodes: Node) -> "Graph":
        """The graph with nodes replaced or added, without nodes that nothing reads any more."""
        return _ordered({**self.nodes, **{node.name: node for node in nodes}}, self.outputs)

    def redirected(self, old: str, new: str) -> "Graph":
        """The graph in which `new` replaces `old` as an input of every other node, and as an output."""
        readers = [
            replace(node, inputs=tuple(new if name == old else name for name in node.inputs))
            for node in self.consumers(old)
            if node.name != new
        ]
        outputs = {key: new if name == old else name for key, name in self.outputs.items()}
        return _ordered({**self.nodes, **{node.name: node for node in readers}}, outputs)

    def without(self, node: Node, origin: Origin | None) -> "Graph":
        """The graph without a node, replaced by its only input; `origin` is for an input that has none of its own."""
        source = self[node.inputs[0]]
        graph = self.with_nodes(replace(source, origin=source.origin or origin))
        return graph.redirected(node.name, source.name)

    def unused(self, name: str) -> str:
        """`name`, or the first of `name_2`, `name_3`, ... that is not taken."""
        candidates = (name if k == 1 else f"{name}_{k}" for k in range(1, len(self.nodes) + 2))
        return next(candidate for candidate in candidates if candidate not in self.nodes)

    def run(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The value of every node for inputs by name.

        Operations are made in name scopes `n0`, `n1`, … by which the converter's output is recognised: it cuts names
        at 50 characters, so that the nodes' own do not fit.
        """
        values: dict[str, tf.Tensor] = {}
        for k, node in enumerate(self):
            with tf.name_scope(f"n{k}"):
                is_input = isinstance(node.operation, Input)
                value = inputs[node.name] if is_input else node.operation(*(values[name] for name in node.inputs))
                values[node.name] = value if node.limits is None else _rounded(value, node.limits)
        return values


def _rounded(value: tf.Tensor, limits: Limits) -> tf.Tensor:
    """The form in which the converter takes an activation's range."""
    return tf.quantization.fake_quant_with_min_max_args(value, *limits)


Pass = Callable[[Graph], Graph]


def _ordered(nodes: Mapping[str, Node], outputs: Mapping[str, str]) -> Graph:
    ordered: dict[str, Node] = {}
    # Inputs stay, read or not: they are the network's signature. An explicit stack: networks can be deep.
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
    """A graph of nodes in any order."""
    return _ordered({node.name: node for node in nodes}, outputs)


def batches(inputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Inputs by name, some samples at a time."""
    size = len(next(iter(inputs.values())))
    for k in range(0, size, _BATCH):
        yield {name: array[k : k + _BATCH] for name, array in inputs.items()}


def simulated(graph: Graph, inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """The values of named nodes for any number of samples, inputs given by name."""
    parts = []
    for batch in batches(inputs):
        values = graph.run({name: tf.constant(array) for name, array in batch.items()})
        parts.append([values[name].numpy() for name in names])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
