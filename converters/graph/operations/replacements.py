"""Functions that the converter does not have, or computes wrongly, composed of others that it has.

`Softsign` has no operator in TensorFlow Lite. The converter's own compositions of `Log1p` and `Softplus` are wrong.
"""

from collections.abc import Callable

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef


def with_replacements(graph_def: GraphDef) -> bool:
    """Replaces such functions in a graph, whose other names stay as they are; returns whether there were any."""
    found = [node for node in graph_def.node if node.op in _REPLACEMENTS]
    for node in found:
        _REPLACEMENTS[node.op](graph_def, node)
    return bool(found)


def called(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """A function of one tensor within a graph, with its operations replaced."""
    traced = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
    graph_def = traced.graph.as_graph_def()
    if traced.captured_inputs or not with_replacements(graph_def):
        return function(x)
    given, result = traced.inputs[0].name, traced.outputs[0].name
    (y,) = tf.graph_util.import_graph_def(graph_def, input_map={given: x}, return_elements=[result], name="function")
    return y


def _softplus(graph_def: GraphDef, node: NodeDef) -> None:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which never overflows."""
    (x,) = node.input
    power = _added(graph_def, node, "Exp", _added(graph_def, node, "Neg", _added(graph_def, node, "Abs", x)))
    rest = _added(graph_def, node, "Log", _added(graph_def, node, "AddV2", _one(graph_def, node), power))
    _become(node, "AddV2", _added(graph_def, node, "Relu", x), rest)


def _log1p(graph_def: GraphDef, node: NodeDef) -> None:
    """log(1 + x)."""
    (x,) = node.input
    _become(node, "Log", _added(graph_def, node, "AddV2", _one(graph_def, node), x))


def _softsign(graph_def: GraphDef, node: NodeDef) -> None:
    """x / (1 + |x|)."""
    (x,) = node.input
    magnitude = _added(graph_def, node, "Abs", x)
    _become(node, "RealDiv", x, _added(graph_def, node, "AddV2", _one(graph_def, node), magnitude))


_REPLACEMENTS: dict[str, Callable[[GraphDef, NodeDef], None]] = {
    "Log1p": _log1p,
    "Softplus": _softplus,
    "Softsign": _softsign,
}


def _one(graph_def: GraphDef, node: NodeDef) -> str:
    """The constant 1, of the type of a node's result."""
    constant = graph_def.node.add(name=f"{node.name}/one", op="Const")
    constant.attr["dtype"].type = node.attr["T"].type
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0, tf.as_dtype(node.attr["T"].type)))
    return str(constant.name)


def _added(graph_def: GraphDef, node: NodeDef, operation: str, *inputs: str) -> str:
    """Adds an operation that a node's replacement needs; returns its name."""
    added = graph_def.node.add(name=f"{node.name}/{operation.lower()}", op=operation, input=inputs)
    added.attr["T"].type = node.attr["T"].type
    return str(added.name)


def _become(node: NodeDef, operation: str, *inputs: str) -> None:
    """Turns a node into another operation, which has its name."""
    kind = node.attr["T"].type
    node.op, node.input[:] = operation, inputs
    node.attr.clear()
    node.attr["T"].type = kind
