"""Intermediate form -> TFLite file, by Larq Compute Engine's converter, under names that people know."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

import kbnn
from kbnn.converters import flatbuffer
from kbnn.converters.deploy.graph import Graph, Node
from kbnn.converters.deploy.operations import BinaryConvolution, Convolution, Dense, Input, Opaque, Part
from kbnn.converters.errors import ConversionError
from kbnn.converters.flatbuffer import File, Operator
from kbnn.converters.inspection import data_input, is_convolution
from kbnn.converters.kernel_bits import kernel_name
from kbnn.converters.names import last_operation, operations, value_name
from kbnn.converters.quiet import held_stderr

# The metadata entry that says how kbnn made a file, so that `verify` can follow it.
MADE_BY = "KBNN"
_CONVOLVES = (BinaryConvolution, Convolution, Dense, Opaque)


@dataclass(frozen=True)
class Trace:
    """The converter's input: a function of fixed shapes, which node made each operation, and whose value each is.

    `order` numbers the operations by name; `nodes` are the nodes that made them; `values` those that their outputs,
    by number, are the values of; `keras` are the names that operations of opaque nodes have in Keras's own graph.
    """

    module: tf.Module
    order: Mapping[str, int]
    nodes: Mapping[int, Node]
    values: Mapping[tuple[int, int], Node]
    keras: Mapping[int, str]


def lower(graph: Graph, options: Mapping[str, Any]) -> File:
    """The file of a graph, with a batch of 1. Tensors are named after the graph's nodes, kernels after their layers.

    The converter's own `convert_keras_model` is not used: on any exception it falls back to another path, whose files
    differ, and only warns.

    Raises:
        ConversionError: the converter fails.
    """
    trace = serving(graph)
    file = with_names(flatbuffer.parse(_convert(trace)), trace, graph)
    model = flatbuffer.tree(file.data)
    made_by = {"version": kbnn.__version__, **options}
    flatbuffer.add_metadata(model, MADE_BY, json.dumps(made_by, sort_keys=True).encode())
    return flatbuffer.parse(flatbuffer.pack(model))


def serving(graph: Graph) -> Trace:
    """A graph as a function of one sample, its inputs and outputs by name."""
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
    # The variables alone: a Keras layer as an attribute would be traced once more.
    module.captured = module.serve.graph.variables
    order = {operation.name: k for k, operation in enumerate(module.serve.graph.get_operations())}
    scopes = {f"n{k}": node for k, node in enumerate(graph)}
    made = {index: scopes[name.split("/")[0]] for name, index in order.items() if name.split("/")[0] in scopes}
    tensors = {name: value for name, value in values.items() if tf.is_tensor(value)}
    held = {(order[value.op.name], value.value_index): graph[name] for name, value in tensors.items()}
    # A tensor in int8 is named after the value before it is rounded; the parts of a split one all after the split.
    rounded = [node for node in graph if node.limits is not None and not isinstance(node.operation, Part)]
    before = {node.name: tensors[node.name].op.inputs[0] for node in rounded}
    held |= {(order[value.op.name], value.value_index): graph[name] for name, value in before.items()}
    return Trace(module, order, made, held, _keras_names(made))


def _keras_names(made: Mapping[int, Node]) -> dict[int, str]:
    """What the operations of Keras layers that stay as they are were called in the model: they are made in order."""
    names: dict[int, str] = {}
    for node in {node.name: node for node in made.values()}.values():
        if isinstance(node.operation, Opaque):
            places = [place for place, maker in sorted(made.items()) if maker is node]
            if len(places) == len(node.operation.operations):
                names |= dict(zip(places, node.operation.operations, strict=True))
    return names


def _convert(trace: Trace) -> bytes:
    with tempfile.TemporaryDirectory(prefix="kbnn-") as folder, held_stderr() as log:
        try:
            # Deferred: it loads a native library of 190 MB.
            from larq_compute_engine import convert_saved_model

            tf.saved_model.save(trace.module, folder, signatures=trace.module.serve)
            return convert_saved_model(folder)
        except Exception as error:
            said = "; ".join(log.lines("error:")) or " ".join(str(error).split())
            raise ConversionError(f"LCE cannot convert the model: {said[:400]}; replace the layer it names") from error


def with_names(file: File, trace: Trace, graph: Graph) -> File:
    """A file that was converted from a trace, its tensors named after the graph's nodes and layers."""
    model = flatbuffer.tree(file.data)
    tensors = model.subgraphs[0].tensors
    for index, name in _tensor_names(file, trace, graph).items():
        tensors[index].name = name.encode()
    returned = {tensor.index: _behind(graph, graph.outputs[name]) for name, tensor in file.outputs.items()}
    for operator in file.operators:
        if is_convolution(operator):
            node = _convolving_node(operator, trace, returned.get(operator.outputs[0].index))
            if node is not None:
                _name_constants(operator, node, tensors)
    return flatbuffer.parse(flatbuffer.pack(model))


def _tensor_names(file: File, trace: Trace, graph: Graph) -> dict[int, str]:
    """Activations by the node whose value they are; those inside a node are numbered."""
    names = {tensor.index: name for name, tensor in file.inputs.items()}
    names |= {tensor.index: graph.outputs[name] for name, tensor in file.outputs.items()}
    taken = set(names.values())
    for operator in file.operators:
        for number, tensor in enumerate(operator.outputs):
            if tensor.index not in names:
                names[tensor.index] = _tensor_name(value_name(file, tensor), number, trace, taken)
                taken.add(names[tensor.index])
    return names


def _tensor_name(name: str, output: int, trace: Trace, taken: set[str]) -> str:
    last = last_operation(name, trace.order)
    if last is None:
        return next(other for other in (f"unnamed/{k}" for k in range(len(taken) + 1)) if other not in taken)
    held = trace.values.get((last, output))
    if held is not None and held.name not in taken:
        return held.name
    if last in trace.keras:
        return trace.keras[last]
    inside = trace.nodes[last].name
    return next(other for other in (f"{inside}/{k}" for k in range(len(taken) + 1)) if other not in taken)


def _convolving_node(operator: Operator, trace: Trace, returned: Node | None) -> Node | None:
    """The node that a convolution operator came from: by what it writes, else by the sign that it reads.

    The names of what the network returns tell nothing: `returned` is the node behind such a value.
    """
    places = sorted(operations(operator.outputs[0].name, trace.order))
    written = [node for node in [*(trace.nodes.get(k) for k in places), returned] if node is not None]
    if operator.name != "LceBconv2d":
        return next((node for node in written if isinstance(node.operation, _CONVOLVES)), None)
    read = last_operation(data_input(operator).name, trace.order)
    sign = trace.values.get((read, 0)) if read is not None else None
    readers = [node for node in trace.nodes.values() if sign is not None and sign.name in node.inputs]
    binary = [node for node in [*written, *readers] if isinstance(node.operation, BinaryConvolution)]
    # Where the layer stayed a Keras layer, it is that; but what it writes may also bear the name of one that reads it.
    return next(iter(binary), None) or next((node for node in written if isinstance(node.operation, Opaque)), None)


def _behind(graph: Graph, name: str) -> Node:
    """The node that convolves behind a value, if only operations of one input lie between."""
    node = graph[name]
    while not isinstance(node.operation, _CONVOLVES) and len(node.inputs) == 1:
        node = graph[node.inputs[0]]
    return node


def _name_constants(operator: Operator, node: Node, tensors: Any) -> None:
    kernel = kernel_name(node) if isinstance(node.operation, BinaryConvolution) else f"{node.layer}/kernel"
    roles = ("kernel", "multiplier", "bias", "thresholds") if operator.name == "LceBconv2d" else ("kernel", "bias")
    for tensor, role in zip(operator.inputs[1:], roles, strict=False):
        if tensor is not None and tensor.data is not None:
            tensors[tensor.index].name = kernel.replace("/kernel", f"/{role}").encode()
