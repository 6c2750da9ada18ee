"""From the intermediate form to a TFLite file, with Larq Compute Engine's converter; tensors are named after layers."""

import contextlib
import copy
import json
import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import count

import numpy as np
import tensorflow as tf

from kbnn import files
from kbnn.converters.errors import ConversionError
from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.lowering import Trace, serving
from kbnn.converters.graph.operations import BinaryConvolution, Opaque
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.lce import SchemaObject
from kbnn.converters.tflite.names import last_operation, operations, value_name
from kbnn.converters.tflite.operators import data_input, is_convolution
from kbnn.native_output import held_stderr

# The metadata entry that records how kbnn made a file, so that `verify` can repeat it.
MADE_BY = "KBNN"
_ERROR = re.compile(r"^(?:loc\((.*)\): )?error: (.*?)\s*$", re.MULTILINE)
_SCOPE = re.compile(r'"n(\d+)/')


def lower(graph: Graph, options: Mapping[str, object]) -> File:
    """Converts a graph to a file with a batch of 1; tensors are named after the graph's nodes, kernels after layers.

    This does not use the converter's `convert_keras_model`: on any exception it only warns, and falls back to another
    path that gives different files.

    Raises:
        ConversionError: the converter fails.
    """
    trace = serving(graph)
    made_by = json.dumps(dict(options), sort_keys=True).encode()
    return with_names(flatbuffer.parse(_convert(trace, graph)), trace, graph, {MADE_BY: made_by})


def _convert(trace: Trace, graph: Graph) -> bytes:
    with files.scratch() as folder, held_stderr() as log, _only_warnings():
        try:
            # Imported here, because it loads a native library of 190 MB.
            from larq_compute_engine import convert_saved_model

            tf.saved_model.save(trace.module, str(folder), signatures=trace.module.serve)
            return convert_saved_model(str(folder))
        except Exception as error:
            said = _errors(log.text(), graph) or " ".join(str(error).split())
            raise ConversionError(f"LCE cannot convert the model: {said[:400]}; replace the layer it names") from error


def _errors(log: str, graph: Graph) -> str:
    """The converter's error messages, each with the layer whose scope (see `Graph.run`) its location names."""
    nodes = list(graph)
    found: dict[str, None] = {}
    for location, text in _ERROR.findall(log):
        places = [nodes[int(k)] for k in _SCOPE.findall(location) if int(k) < len(nodes)]
        found[f"layer '{places[0].layer}': {text}" if places else text] = None
    return "; ".join(found)


@contextlib.contextmanager
def _only_warnings() -> Iterator[None]:
    """Keeps TensorFlow's Python logger from saying where it wrote the scratch model."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(level)


def with_names(file: File, trace: Trace, graph: Graph, metadata: Mapping[str, bytes] | None = None) -> File:
    """Names the tensors of a file that was converted from a trace after the graph's nodes and layers.

    `metadata` is added to the file, so that it is rewritten only once.
    """
    model = flatbuffer.tree(file.data)
    tensors = model.subgraphs[0].tensors
    for index, name in _tensor_names(file, trace, graph).items():
        tensors[index].name = name.encode()
    returned = {tensor.index: _behind(graph, graph.outputs[name]) for name, tensor in file.outputs.items()}
    named: set[int] = set()
    for operator in file.operators:
        if is_convolution(operator):
            node = _convolving_node(operator, trace, returned.get(operator.outputs[0].index))
            if node is not None:
                _name_constants(operator, node, model.subgraphs[0], named)
    for name, entry in (metadata or {}).items():
        flatbuffer.add_metadata(model, name, entry)
    return flatbuffer.parse(flatbuffer.pack(model))


def _tensor_names(file: File, trace: Trace, graph: Graph) -> dict[int, str]:
    """The names of activations: the node whose value it is, or a numbered name for a value within a node."""
    names = {tensor.index: name for name, tensor in file.inputs.items()}
    names |= {tensor.index: graph.outputs[name] for name, tensor in file.outputs.items()}
    taken = set(names.values())
    names |= {k: name for k, name in _rounded_values(file, trace).items() if k not in names and name not in taken}
    taken = set(names.values())
    for operator in file.operators:
        for number, tensor in enumerate(operator.outputs):
            if tensor.index not in names:
                is_binary = operator.name == "LceBconv2d" or tensor.dtype == "int32"
                names[tensor.index] = _tensor_name(value_name(file, tensor), number, trace, taken, is_binary)
                taken.add(names[tensor.index])
    return names


def _rounded_values(file: File, trace: Trace) -> dict[int, str]:
    """Finds the int8 values of opaque nodes: the last tensor within the node that has the levels of its value.

    The names do not tell, because the converter may move the rounding in front of a reshape.
    """
    found: dict[str, int] = {}
    for operator in file.operators:
        for tensor in operator.outputs:
            last = last_operation(value_name(file, tensor), trace.order)
            node = trace.nodes.get(last) if last is not None else None
            if node is not None and isinstance(node.operation, Opaque) and _has_levels(tensor, node):
                found[node.name] = tensor.index
    return {index: name for name, index in found.items()}


def _has_levels(tensor: Tensor, node: Node) -> bool:
    if tensor.dtype != "int8" or node.limits is None or len(tensor.scales) != 1:
        return False
    step = (node.limits[1] - node.limits[0]) / 255
    return abs(tensor.scales[0] - step) < 1e-4 * step and math.prod(tensor.shape[1:]) == math.prod(node.shape)


def _tensor_name(name: str, output: int, trace: Trace, taken: set[str], is_binary: bool) -> str:
    """The name of an activation; binary values within a node have Keras's names, which tell their layers."""
    last = last_operation(name, trace.order)
    if last is None:
        return _numbered("unnamed", taken)
    held = trace.values.get((last, output))
    if held is not None and held.name not in taken:
        return held.name
    if is_binary and last in trace.keras:
        return trace.keras[last]
    return _numbered(trace.nodes[last].name, taken)


def _numbered(prefix: str, taken: Collection[str]) -> str:
    """The first of `prefix/0`, `prefix/1`, … that is not taken."""
    return next(name for name in (f"{prefix}/{k}" for k in count()) if name not in taken)


def _convolving_node(operator: Operator, trace: Trace, returned: Node | None) -> Node | None:
    """The node that a convolution operator came from, according to its output, or else to the sign that it reads.

    The name of an output of the network tells nothing; `returned` is then the node that computes it.
    """
    places = sorted(operations(operator.outputs[0].name, trace.order))
    written = [node for node in [*(trace.nodes.get(k) for k in places), returned] if node is not None]
    if operator.name != "LceBconv2d":
        return next((node for node in written if node.operation.convolves), None)
    read = last_operation(data_input(operator).name, trace.order)
    sign = trace.values.get((read, 0)) if read is not None else None
    readers = [node for node in trace.nodes.values() if sign is not None and sign.name in node.inputs]
    # Convolutions that read the same sign share its padding, which has the name of one of them: prefer convolutions.
    convolves = {place for name, place in trace.order.items() if "Conv2D" in name.rsplit("/")[-1]}
    own = [trace.nodes[place] for place in places if place in trace.nodes and place in convolves]
    binary = [node for node in [*own, *written, *readers] if isinstance(node.operation, BinaryConvolution)]
    # A layer that was not lifted is an opaque node. It comes last, because an output can have the name of its reader.
    return next(iter(binary), None) or next((node for node in written if isinstance(node.operation, Opaque)), None)


def _behind(graph: Graph, name: str) -> Node:
    """The convolution that a value comes from, as far as there are only operations with one input in between."""
    node = graph[name]
    while not node.operation.convolves and len(node.inputs) == 1:
        node = graph[node.inputs[0]]
    return node


def _name_constants(operator: Operator, node: Node, subgraph: SchemaObject, named: set[int]) -> None:
    """Names the constants of a convolution after its node.

    The converter stores equal kernels only once; a binary convolution that shares a kernel gets its own tensor for it.
    """
    kernel = kernel_name(node) if isinstance(node.operation, BinaryConvolution) else f"{node.layer}/kernel"
    roles = ("kernel", "multiplier", "bias", "thresholds") if operator.name == "LceBconv2d" else ("kernel", "bias")
    owner = subgraph.operators[operator.index]
    for place, (tensor, role) in enumerate(zip(operator.inputs[1:], roles, strict=False), start=1):
        if tensor is None or tensor.data is None:
            continue
        index = tensor.index
        if index in named and operator.name == "LceBconv2d":
            index = len(subgraph.tensors)
            subgraph.tensors.append(copy.copy(subgraph.tensors[tensor.index]))
            owner.inputs = np.array([*owner.inputs[:place], index, *owner.inputs[place + 1 :]], np.int32)
        named.add(index)
        subgraph.tensors[index].name = kernel.replace("/kernel", f"/{role}").encode()


def kernel_name(node: Node) -> str:
    """The name of a convolution's kernel in a file."""
    return f"{node.name.removesuffix('/conv')}/kernel"
