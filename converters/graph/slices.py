"""Cuts parts out of Keras's graph, to be imported unchanged into another graph."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

from kbnn.converters.graph.operations.replacements import with_replacements
from kbnn.converters.graph.trace import Reference

_SCALE_OR_SHIFT = ("Mul", "AddV2", "Add", "Sub", "RealDiv", "BiasAdd")
_SUMS = ("AddV2", "Add", "Sub")
_COPIES = ("Identity", "IdentityN", "StopGradient", "Snapshot")
# The operations that a sign may be composed of.
_COMPARISONS = ("Sign", "Greater", "GreaterEqual", "Less", "LessEqual")
_ELEMENTWISE = (
    *(*_COMPARISONS, *_COPIES, *_SUMS, "Select", "SelectV2", "Cast", "Mul", "Neg", "Abs", "Maximum", "Minimum"),
    *("LogicalNot", "LogicalAnd", "LogicalOr", "ZerosLike", "OnesLike", "ClipByValue"),
)
_RECTIFIERS = {"Relu": (0.0, np.inf), "Relu6": (0.0, 6.0)}
_LARGEST_SIGN = 16
# More positive than negative values, both zeros, and values so small that their products underflow.
PROBE = np.array([-3.0, -1.0, -0.5, -1e-30, -0.0, 0.0, 1e-30, 0.2, 0.7, 1.0, 2.0, 50.0], np.float32)


@dataclass(frozen=True)
class Slice:
    """A part of Keras's graph in the form of `operations.Opaque`; `inputs` are the tensors that it reads.

    `varies_over_places` tells whether it scales or shifts by constants that vary over the image. LCE folds such a
    constant into a preceding binary convolution as if it were uniform: it takes the first value, or writes a file that
    does not load.
    """

    graph_def: GraphDef
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    operations: tuple[str, ...]
    varies_over_places: bool


def slice_of(reference: Reference, tensors: Sequence[str], known: Container[str]) -> Slice:
    """The part of the graph that computes `tensors` from constants and from tensors that are `known`."""
    found = _between(reference, tensors, known)
    numbers = {operation.name: str(k) for k, operation in enumerate(found)}
    inputs: dict[str, str] = {}

    def renamed(value: tf.Tensor) -> str:
        source = reference.source(value.name)
        if _is_cut(reference, source, known):
            return inputs.setdefault(source, f"i{len(inputs)}:0")
        return f"{numbers[value.op.name]}:{value.value_index}"

    graph_def = GraphDef(versions=reference.graph_def.versions)
    for operation in found:
        node = graph_def.node.add()
        node.CopyFrom(operation.node_def)
        node.name = numbers[operation.name]
        node.input[:] = [renamed(value) for value in operation.inputs]
        node.attr.pop("_output_shapes", None)
        if _is_sign_of_a_shifted_sign(reference, operation):
            node.input[0] = _kept(graph_def, node.input[0], node.name)
        if any(attribute.HasField("func") for attribute in node.attr.values()):
            graph_def.library.CopyFrom(reference.graph_def.library)
    with_replacements(graph_def)
    results = tuple(renamed(reference.tensor(name)) for name in tensors)
    varies = any(_varies(reference, operation) for operation in found)
    return Slice(graph_def, tuple(inputs), results, tuple(numbers), varies)


def _between(reference: Reference, tensors: Sequence[str], known: Container[str]) -> list[tf.Operation]:
    """The operations that compute tensors from known ones, in execution order."""
    needed: set[int] = set()
    waiting = [reference.tensor(name) for name in tensors]
    while waiting:
        value = waiting.pop()
        place = reference.order[value.op.name]
        if not _is_cut(reference, reference.source(value.name), known) and place not in needed:
            needed.add(place)
            waiting += value.op.inputs
    return [reference.operation(place) for place in sorted(needed)]


def _is_cut(reference: Reference, tensor: str, known: Container[str]) -> bool:
    """Whether a slice starts at a tensor. Masks are recomputed where they are used: LCE must see the comparison."""
    return tensor in known and reference.tensor(tensor).dtype != tf.bool


def sign_source(reference: Reference, tensor: str, at_zero: float = 1.0) -> str | None:
    """The tensor whose sign a named tensor is, elementwise with sign(0) = `at_zero`; None if it is not a sign.

    The search walks back from the tensor, one operation at a time, and tries whether the operations so far turn probe
    values into their signs.
    """
    frontier = [reference.tensor(tensor)]
    made: list[tf.Operation] = []
    while len(made) < _LARGEST_SIGN:
        frontier.sort(key=lambda value: reference.order[value.op.name])
        operation = frontier.pop().op
        if operation.type not in _ELEMENTWISE:
            return None
        made.append(operation.type)
        read = [value for value in operation.inputs if not reference.is_constant(value.name)]
        if any(value.shape.num_elements() != 1 for value in operation.inputs if reference.is_constant(value.name)):
            return None
        frontier += [value for value in read if all(value is not other for other in frontier)]
        if not frontier:
            return None
        if len(frontier) == 1 and any(kind in _COMPARISONS for kind in made):
            source = reference.source(frontier[0].name)
            if _turns_into_signs(reference, source, tensor, at_zero):
                return source
    return None


def _turns_into_signs(reference: Reference, source: str, tensor: str, at_zero: float) -> bool:
    shape = reference.shape(source)
    if reference.tensor(source).dtype != tf.float32 or None in shape or shape != reference.shape(tensor):
        return False
    given = np.resize(PROBE, (1, *shape))
    signs = np.where(given == 0, at_zero, np.sign(given))
    return np.array_equal(reference.computed(tensor, {source: given}), signs)


def clip_source(reference: Reference, tensor: str) -> tuple[str, float, float] | None:
    """The tensor that a named one clips, with both bounds; None if it clips nothing.

    Clips are found by what they compute: `tf.nn.relu`, `tf.maximum(x, 0)`, `tf.clip_by_value`, in a `Lambda` or not.
    """
    found, low, high = tensor, -np.inf, np.inf
    while True:
        operation = reference.tensor(found).op
        bounds = _bounds(reference, operation)
        computed = [value for value in operation.inputs if not reference.is_constant(value.name)]
        if bounds is None or len(computed) != 1 or computed[0].dtype != tf.float32:
            break
        # The operations found so far clip the result of this one.
        low, high = (float(min(max(bound, low), high)) for bound in bounds)
        found = reference.source(computed[0].name)
    same_shape = reference.shape(found) == reference.shape(tensor)
    return (found, low, high) if found != tensor and low < high and same_shape else None


def _bounds(reference: Reference, operation: tf.Operation) -> tuple[float, float] | None:
    """The bounds of an operation that clips its only computed input."""
    if operation.type in _RECTIFIERS:
        return _RECTIFIERS[operation.type]
    constants = [value.name for value in operation.inputs if reference.is_constant(value.name)]
    if operation.type not in ("Maximum", "Minimum") or len(constants) != 1:
        return None
    bound = reference.constants(constants)[0]
    if bound.size != 1:
        return None
    return (bound.item(), np.inf) if operation.type == "Maximum" else (-np.inf, bound.item())


def _is_sign_of_a_shifted_sign(reference: Reference, operation: tf.Operation) -> bool:
    """Whether LCE mistakes an operation for sign(x): it ignores the c in `sign(sign(x) + c)`.

    That is right only if 0 < c < 1.
    """
    if operation.type != "Sign" or operation.inputs[0].op.type not in _SUMS:
        return False
    terms = list(operation.inputs[0].op.inputs)
    if not any(_behind_copies(value).type == "Sign" for value in terms):
        return False
    constants = [value.name for value in terms if reference.is_constant(value.name)]
    if len(constants) != 1 or operation.inputs[0].op.type == "Sub":
        return True
    return not np.all(np.abs(reference.constants(constants)[0] - 0.5) < 0.5)


def _behind_copies(value: tf.Tensor) -> tf.Operation:
    while value.op.type in _COPIES:
        value = value.op.inputs[value.value_index]
    return value.op


def _kept(graph_def: GraphDef, read: str, name: str) -> str:
    """Hides the value that a node reads behind an operation that the converter does not look through."""
    smallest = graph_def.node.add(name=f"{name}/smallest", op="Const")
    smallest.attr["dtype"].type = tf.float32.as_datatype_enum
    smallest.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(tf.float32.min))
    kept = graph_def.node.add(name=f"{name}/kept", op="Maximum", input=[read, smallest.name])
    kept.attr["T"].type = tf.float32.as_datatype_enum
    return str(kept.name)


def _varies(reference: Reference, operation: tf.Operation) -> bool:
    if operation.type not in _SCALE_OR_SHIFT:
        return False
    constants = [value for value in operation.inputs if reference.is_constant(value.name)]
    return len(constants) < len(operation.inputs) and any(_is_map(value) for value in constants)


def _is_map(value: tf.Tensor) -> bool:
    return value.shape.rank is not None and any(size != 1 for size in value.shape[-3:-1])
