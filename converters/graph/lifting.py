"""Keras -> intermediate form: each layer call by its rule, and as it is where there is none."""

import math
from collections.abc import Sequence
from dataclasses import replace

import tensorflow as tf

from kbnn.converters.graph import rules_binary, rules_functions, rules_kbnn, rules_keras  # noqa: F401  (importing registers them)
from kbnn.converters.graph.binary_layers import binary_calls
from kbnn.converters.graph.graph import Graph, Node, Origin, build
from kbnn.converters.graph.operations import Affine, BinaryConvolution, Input, Kept, Opaque, Part, Shape, Sign
from kbnn.converters.graph.rules import Context, Step, rule_for
from kbnn.converters.graph.trace import Call, Reference
from kbnn.structure import is_binary


class _OutsideLayersError(Exception):
    """A value is computed outside of any layer, in the body of a subclassed model or layer."""


def lift(reference: Reference) -> Graph:
    """The graph of a traced model.

    What no rule knows stays a Keras layer. A subclassed model that computes something between its layers stays whole.
    """
    lifted = _Lifted(reference)
    try:
        lifted.walk(reference.root)
        return lifted.graph()
    except _OutsideLayersError:
        whole = _Lifted(reference)
        whole.opaque(reference.root)
        return whole.graph()


class _Lifted:
    """The nodes made so far, and which Keras tensor is the value of which."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._context = _context(reference)
        self._nodes: dict[str, Node] = {}
        self._values: dict[str, str] = {}
        for name, tensor in reference.inputs.items():
            shape = reference.shape(tensor)
            operation = Input(reference.signature[name].dtype)
            self._nodes[name] = Node(name, operation, (), shape, name, Origin.of(tensor, shape[-1]))
            self._values[tensor] = name

    def graph(self) -> Graph:
        outputs = {name: self._value(tensor) for name, tensor in self._reference.outputs.items()}
        return build(self._nodes.values(), outputs)

    def walk(self, call: Call) -> None:
        """One call: by the rule of its layer, by the calls within it, or as it is."""
        rule = rule_for(call.layer)
        steps = rule(call, self._context) if rule is not None else None
        if steps is not None:
            self._chain(call, steps)
        elif isinstance(call.layer, tf.keras.Model) or any(is_binary(child.layer) for child in call.children):
            self._within(call)
        else:
            self.opaque(call)

    def _within(self, call: Call) -> None:
        before = dict(self._nodes), dict(self._values)
        try:
            for child in call.children:
                self.walk(child)
            for output in call.outputs:
                self._value(output)
        except _OutsideLayersError:
            self._nodes, self._values = before
            if call is self._reference.root:
                raise
            self.opaque(call)

    def _chain(self, call: Call, steps: Sequence[Step]) -> None:
        """A layer as operations one after the other; the last one bears its name, and its value is Keras's."""
        inputs = tuple(self._value(tensor) for tensor in call.inputs)
        shape = self._reference.shape(call.outputs[0])
        for k, (suffix, operation, step_shape) in enumerate(steps):
            is_last = k == len(steps) - 1
            is_value = is_last and len(call.outputs) == 1
            name = call.layer.name if is_value else f"{call.layer.name}/{suffix}"
            origin = Origin.of(call.outputs[0], shape[-1]) if is_value else None
            if isinstance(operation, Sign):
                origin = self._presign(call, step_shape or shape)
            inputs = (self._add(Node(name, operation, inputs, step_shape or shape, call.layer.name, origin)),)
        self._give(call, inputs[0])

    def _presign(self, call: Call, shape: Shape) -> Origin | None:
        """What Keras takes the sign of: the layer's input, unless it is padded before."""
        keras = self._reference.shape(call.inputs[0])
        return Origin.of(call.inputs[0], shape[-1]) if math.prod(keras) == math.prod(shape) else None

    def opaque(self, call: Call) -> None:
        """A layer as it is."""
        inputs = tuple(self._value(tensor) for tensor in call.inputs)
        if _varies_over_places(self._reference, call):
            inputs = tuple(self._kept(name, call) for name in inputs)
        operations = [self._reference.operation(k).name for k in range(call.first, call.last)]
        operation = Opaque(call.layer, call.arguments, call.inputs, operations)
        is_value = len(call.outputs) == 1
        shape, origin = self._value_of(call.outputs[0]) if is_value else ((), None)
        name = call.layer.name if is_value else f"{call.layer.name}/all"
        self._give(call, self._add(Node(name, operation, inputs, shape, call.layer.name, origin)))

    def _kept(self, name: str, call: Call) -> str:
        """What a binary convolution makes, for a layer that must not be folded into it."""
        source = node = self._nodes[name]
        while isinstance(source.operation, Affine):
            source = self._nodes[source.inputs[0]]
        if not isinstance(source.operation, BinaryConvolution):
            return name
        return self._add(Node(f"{call.layer.name}/kept", Kept(), (name,), node.shape, call.layer.name))

    def _give(self, call: Call, name: str) -> None:
        """Notes that a node is what a call returns, or holds all that it returns."""
        if len(call.outputs) == 1:
            self._values[call.outputs[0]] = name
            return
        for k, output in enumerate(call.outputs):
            shape, origin = self._value_of(output)
            part = Node(f"{call.layer.name}/{k}", Part(k), (name,), shape, call.layer.name, origin)
            self._values[output] = self._add(part)

    def _value_of(self, tensor: str) -> tuple[Shape, Origin | None]:
        shape = self._reference.shape(tensor)
        return shape, Origin.of(tensor, shape[-1]) if shape else None

    def _add(self, node: Node) -> str:
        candidates = (node.name if k == 1 else f"{node.name}_{k}" for k in range(1, len(self._nodes) + 2))
        name = next(candidate for candidate in candidates if candidate not in self._nodes)
        self._nodes[name] = replace(node, name=name)
        return name

    def _value(self, tensor: str) -> str:
        if tensor not in self._values:
            raise _OutsideLayersError(tensor)
        return self._values[tensor]


def _varies_over_places(reference: Reference, call: Call) -> bool:
    """Whether a layer scales or shifts by constants that are not the same everywhere.

    LCE folds such a constant into a binary convolution before it as if it were the same: it takes the first value, or
    writes a file that does not load.
    """
    operations = reference.operations(call, ("Mul", "AddV2", "Add", "Sub", "RealDiv", "BiasAdd"))
    for operation in operations:
        constants = [value for value in operation.inputs if reference.is_constant(value.name)]
        if len(constants) < len(operation.inputs) and any(_is_map(value) for value in constants):
            return True
    return False


def _is_map(value: tf.Tensor) -> bool:
    return value.shape.rank is not None and any(size != 1 for size in value.shape[-3:-1])


def _context(reference: Reference) -> Context:
    """The kernels that Keras convolves with, after their quantizers."""
    calls = {id(call): call for call in reference.calls if _kernel(reference, call) is not None}
    names = {key: str(_kernel(reference, call)) for key, call in calls.items()}
    values = reference.constants(list(names.values())) if names else []
    numbers = {id(binary.call): k for k, binary in enumerate(binary_calls(reference))}
    return Context(reference, dict(zip(names, values, strict=True)), numbers)


def _kernel(reference: Reference, call: Call) -> str | None:
    if not hasattr(call.layer, "kernel"):
        return None
    operations = reference.operations(call, ("Conv2D", "MatMul"))
    return str(operations[0].inputs[1].name) if len(operations) == 1 else None
