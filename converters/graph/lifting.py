"""From Keras to the intermediate form: each layer call is lifted by its rule; a layer without a rule stays opaque."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import tensorflow as tf
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

from kbnn.converters.graph import rules_binary, rules_functions, rules_kbnn, rules_keras  # noqa: F401  (importing registers them)
from kbnn.converters.graph.binary_layers import binary_calls, has_threshold
from kbnn.converters.graph.graph import Graph, Node, Origin, build, unused_name
from kbnn.converters.graph.operations import (
    Add,
    Affine,
    BinaryConvolution,
    Clip,
    Concatenate,
    Input,
    Kept,
    Maximum,
    Opaque,
    Operation,
    Pad,
    Part,
    Reshape,
    Shape,
    Shuffle,
    Sign,
)
from kbnn.converters.graph.rules import Context, Step, SumOfChains, clips, rule_for
from kbnn.converters.graph.slices import clip_source, sign_source, slice_of
from kbnn.converters.graph.trace import TRACING, Call, Reference
from kbnn.structure import has_binary_kernel


def lift(reference: Reference) -> Graph:
    """The graph of a traced model; layers without a rule become `Opaque` nodes, which run Keras's own operations."""
    with TRACING:
        lifted = _Lifted(reference)
        lifted.walk(reference.root)
        return lifted.graph()


class _Lifted:
    """The nodes lifted so far, and the node that holds the value of each Keras tensor."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._context = _context(reference, self._holds_signs, self._is_sign_node)
        self._nodes: dict[str, Node] = {}
        self._values: dict[str, str] = {}
        for name, tensor in reference.inputs.items():
            shape = reference.shape(tensor)
            operation = Input(reference.signature[name].dtype)
            _, origin = self._value_of(tensor)
            self._nodes[name] = Node(name, operation, (), shape, name, origin)
            self._values[tensor] = name

    def graph(self) -> Graph:
        outputs = {name: self._value(tensor) for name, tensor in self._reference.outputs.items()}
        return build(self._nodes.values(), outputs)

    def walk(self, call: Call) -> None:
        """Lifts one call: by the rule of its layer, else by the calls within it, else as an opaque node."""
        outputs = [name for name in call.outputs if name not in self._values]
        if not outputs:
            return
        if len(outputs) == 1 and self._is_sign(outputs[0], call.layer.name):
            return
        is_plain = self._is_in_float32(call) and not self._mixes_constants(call)
        rule = rule_for(call.layer) if is_plain else None
        steps = rule(call, self._context) if rule is not None else None
        if steps is not None:
            self._chain(call, steps)
        elif isinstance(call.layer, tf.keras.Model) or _holds_binary_layer(call):
            for child in call.children:
                self.walk(child)
            for output in call.outputs:
                self._value(output, call.layer.name)
        elif len(outputs) != 1 or not self._is_clip(outputs[0], call.layer.name):
            self._opaque(outputs, call.layer.name)

    def _is_in_float32(self, call: Call) -> bool:
        """Whether a layer maps floats to floats, as the rules expect; Keras may cast other inputs."""
        return all(self._reference.tensor(name).dtype == tf.float32 for name in (*call.inputs, *call.outputs))

    def _mixes_constants(self, call: Call) -> bool:
        """Whether a layer was also called with constants, which the rules do not expect."""
        knows_constants = isinstance(call.layer, TFOpLambda)
        return (call.has_constants and not knows_constants) or any(map(self._reference.is_constant, call.inputs))

    def _chain(self, call: Call, steps: Sequence[Step]) -> None:
        """Adds the consecutive operations of a layer; the last one has the layer's name and holds its output."""
        inputs = tuple(self._value(tensor) for tensor in call.inputs)
        shape = self._reference.shape(call.outputs[0])
        for k, (suffix, operation, step_shape) in enumerate(steps):
            is_last = k == len(steps) - 1
            name = call.layer.name if is_last else f"{call.layer.name}/{suffix}"
            origin = Origin.of(call.outputs[0], shape[-1]) if is_last else None
            if isinstance(operation, Sign):
                origin = self._presign(call, step_shape or shape)
            if isinstance(operation, SumOfChains):
                inputs, operation = tuple(self._branch(call, chain, inputs) for chain in operation.chains), Add()
            inputs = (self._add(Node(name, operation, inputs, step_shape or shape, call.layer.name, origin)),)
        self._values[call.outputs[0]] = inputs[0]

    def _branch(self, call: Call, steps: Sequence[Step], inputs: tuple[str, ...]) -> str:
        """Adds one of the chains of a sum; Keras has no tensors for the values in it."""
        shape = self._reference.shape(call.outputs[0])
        for suffix, operation, step_shape in steps:
            if isinstance(operation, SumOfChains):
                raise TypeError(f"the rule of layer '{call.layer.name}' nests a sum in a sum")
            name = f"{call.layer.name}/{suffix}"
            inputs = (self._add(Node(name, operation, inputs, step_shape or shape, call.layer.name)),)
        return inputs[0]

    def _presign(self, call: Call, shape: Shape) -> Origin | None:
        """The tensor whose sign Keras takes: the layer's input, less its threshold; None if it is padded first."""
        value = call.inputs[0]
        if has_threshold(call.layer):
            value = str(self._reference.operations(call, ("Sub",))[0].outputs[0].name)
        keras = self._reference.shape(value)
        return Origin.of(value, shape[-1]) if math.prod(keras) == math.prod(shape) else None

    def _opaque(self, tensors: Sequence[str], layer: str) -> None:
        """Adds the part of Keras's graph that computes some tensors from existing nodes, unchanged."""
        if len(tensors) == 1 and self._is_sign(tensors[0], layer):
            return
        part = slice_of(self._reference, tensors, self._values.keys())
        inputs = tuple(self._values[name] for name in part.inputs)
        if part.varies_over_places:
            inputs = tuple(self._kept(name, layer) for name in inputs)
        operation = Opaque(part.graph_def, part.results, part.operations)
        if len(tensors) == 1:
            shape, origin = self._value_of(tensors[0])
            self._values[tensors[0]] = self._add(Node(layer, operation, inputs, shape, layer, origin))
            return
        whole = self._add(Node(f"{layer}/all", operation, inputs, (), layer))
        for k, tensor in enumerate(tensors):
            shape, origin = self._value_of(tensor)
            self._values[tensor] = self._add(Node(f"{layer}/{k}", Part(k), (whole,), shape, layer, origin))

    def _is_sign(self, tensor: str, layer: str) -> bool:
        """Adds a `Sign` for a tensor that is a sign, however Keras computes it; returns whether it is one."""
        source = sign_source(self._reference, tensor)
        if source is None:
            return False
        shape, origin = self._value_of(source)
        self._values[tensor] = self._add(Node(layer, Sign(), (self._value(source),), shape, layer, origin))
        return True

    def _is_clip(self, tensor: str, layer: str) -> bool:
        """Adds a `Clip` for a tensor that is clipped by fixed bounds; returns whether it is."""
        found = clip_source(self._reference, tensor)
        if found is None:
            return False
        source, low, high = found
        name, (shape, origin) = self._value(source), self._value_of(tensor)
        for bounds in clips(low, high):
            name = self._add(Node(layer, Clip(*bounds), (name,), shape, layer))
        self._nodes[name] = replace(self._nodes[name], origin=origin)
        self._values[tensor] = name
        return True

    def _holds_signs(self, tensor: str) -> bool:
        """Whether a tensor holds only -1 and +1: signs, possibly reshaped, shuffled, padded, joined or max-pooled."""
        waiting = [self._nodes[self._value(tensor)]]
        while waiting:
            node = waiting.pop()
            if _keeps_signs(node.operation):
                waiting += [self._nodes[name] for name in node.inputs]
            elif not isinstance(node.operation, Sign):
                return False
        return True

    def _is_sign_node(self, tensor: str) -> bool:
        return isinstance(self._nodes[self._value(tensor)].operation, Sign)

    def _kept(self, name: str, layer: str) -> str:
        """Protects a value from being folded into the binary convolution that computes it."""
        source = node = self._nodes[name]
        while isinstance(source.operation, Affine):
            source = self._nodes[source.inputs[0]]
        if not isinstance(source.operation, BinaryConvolution):
            return name
        return self._add(Node(f"{layer}/kept", Kept(), (name,), node.shape, layer))

    def _value_of(self, tensor: str) -> tuple[Shape, Origin | None]:
        shape = self._reference.shape(tensor)
        return shape, Origin.of(tensor, shape[-1]) if shape else None

    def _add(self, node: Node) -> str:
        name = unused_name(node.name, self._nodes)
        self._nodes[name] = replace(node, name=name)
        return name

    def _value(self, tensor: str, layer: str = "") -> str:
        """The node of a tensor; adds one for a tensor that is computed outside any layer."""
        if tensor not in self._values:
            place = self._reference.order[tensor.split(":")[0]]
            self._opaque([tensor], layer or self._reference.layer_name(place))
        return self._values[tensor]


def _keeps_signs(operation: Operation) -> bool:
    """Whether an operation turns signs into signs."""
    if isinstance(operation, Pad):
        return abs(operation.value) == 1.0
    return operation.is_max_pool or isinstance(operation, Concatenate | Maximum | Reshape | Shuffle)


def _holds_binary_layer(call: Call) -> bool:
    return any(has_binary_kernel(inner.layer) for inner in call.nested() if inner is not call)


def _context(reference: Reference, holds_signs: Callable[[str], bool], is_sign: Callable[[str], bool]) -> Context:
    """What rules need to know about a traced model, such as the binarized kernel of each call."""
    calls = {id(call): call for call in reference.calls if _kernel(reference, call) is not None}
    names = {key: str(_kernel(reference, call)) for key, call in calls.items()}
    values = reference.constants(list(names.values())) if names else []
    numbers = {id(binary.call): k for k, binary in enumerate(binary_calls(reference))}
    return Context(reference, dict(zip(names, values, strict=True)), numbers, holds_signs, is_sign)


def _kernel(reference: Reference, call: Call) -> str | None:
    if not hasattr(call.layer, "kernel"):
        return None
    operations = reference.operations(call, ("Conv2D", "MatMul"))
    return str(operations[0].inputs[1].name) if len(operations) == 1 else None
