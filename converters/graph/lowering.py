"""From the intermediate form to a TensorFlow function, which a converter reads."""

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import IMPORT, Input, Opaque, Part


@dataclass(frozen=True)
class Trace:
    """The converter's input: a function with static shapes, and the nodes that its operations belong to.

    `order` numbers the operations by name; `nodes` maps an operation's number to its node; `values` maps an operation's
    number and the index of one of its outputs to the node with that value; `keras` maps the number of an operation in
    an opaque node to the operation's name in Keras's graph.
    """

    module: tf.Module
    order: Mapping[str, int]
    nodes: Mapping[int, Node]
    values: Mapping[tuple[int, int], Node]
    keras: Mapping[int, str]


def serving(graph: Graph) -> Trace:
    """Traces a graph as a function of one sample, with inputs and outputs by name."""
    values: dict[str, tf.Tensor] = {}

    def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        values.update(graph.run(inputs))
        return {name: values[node] for name, node in graph.outputs.items()}

    module = tf.Module()
    specs = {
        node.name: tf.TensorSpec([1, *node.shape], node.operation.dtype, name=node.name)
        for node in graph
        if isinstance(node.operation, Input)
    }
    module.serve = tf.function(serve, autograph=False).get_concrete_function(**specs)
    # Only the variables: a Keras layer as an attribute would be traced again.
    module.captured = module.serve.graph.variables
    order = {operation.name: k for k, operation in enumerate(module.serve.graph.get_operations())}
    scopes = {f"n{k}": node for k, node in enumerate(graph)}
    made = {index: scopes[name.split("/")[0]] for name, index in order.items() if name.split("/")[0] in scopes}
    tensors = {name: value for name, value in values.items() if tf.is_tensor(value)}
    held = {(order[value.op.name], value.value_index): graph[name] for name, value in tensors.items()}
    # An int8 tensor is named after the value before rounding; all parts of a split tensor are named after the split.
    rounded = [node for node in graph if node.limits is not None and not isinstance(node.operation, Part)]
    before = {node.name: tensors[node.name].op.inputs[0] for node in rounded}
    held |= {(order[value.op.name], value.value_index): graph[name] for name, value in before.items()}
    return Trace(module, order, made, held, _keras_names(order, made))


def _keras_names(order: Mapping[str, int], made: Mapping[int, Node]) -> dict[int, str]:
    """The names in Keras's graph of the operations in opaque nodes."""
    names: dict[int, str] = {}
    for name, place in order.items():
        node = made.get(place)
        if node is not None and isinstance(node.operation, Opaque):
            _, scope, *rest = name.split("/")
            if scope == IMPORT and len(rest) == 1 and rest[0].isdigit():
                names[place] = node.operation.operations[int(rest[0])]
    return names
