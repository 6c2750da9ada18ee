"""Compares every packed kernel bit of a file with Keras's kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from kbnn.converters.graph.binary_layers import BinaryCall, binary_calls, levels
from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import BinaryConvolution, Operation, Sign
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite.converter import kernel_name
from kbnn.converters.tflite.flatbuffer import File, Operator
from kbnn.converters.tflite.lce import CHANNELS_PER_WORD
from kbnn.converters.tflite.names import operations
from kbnn.converters.tflite.operators import data_input
from kbnn.converters.verify.alignment import unpack_signs


@dataclass(frozen=True)
class KernelBits:
    """How many packed kernel bits of a 1-bit layer differ from Keras's; None if the file does not have all of them."""

    name: str
    bits: int
    differing: int | None


@dataclass(frozen=True)
class Packed:
    """A binary convolution of a file, and the part of a layer's kernel that it should contain.

    `rows[g]` are the input channels of group `g`, `filters` the filters, both numbered as in Keras's kernel.
    """

    operator: Operator
    call: int
    rows: np.ndarray
    filters: np.ndarray


def find_packed(file: File, reference: Reference, graph: Graph | None) -> list[Packed]:
    """The binary convolutions of a file, each with the kernel that it should contain.

    In a file made by kbnn, the kernels are named after the nodes of its graph. In others, a convolution is matched with
    the call of a 1-bit layer by the names of its tensors, which come from Keras's operations.
    """
    found = _by_graph(file, graph) if graph is not None else []
    calls = binary_calls(reference)
    for operator in _binary_convolutions(file):
        if not any(part.operator is operator for part in found):
            taken = {part.call for part in found}
            free = [k for k in _candidates(operator, calls, reference) if k not in taken]
            found += [_whole(operator, k, calls[k], reference) for k in free[:1]]
    return found


def _by_graph(file: File, graph: Graph) -> list[Packed]:
    nodes = {kernel_name(node): node for node in graph if isinstance(node.operation, BinaryConvolution)}
    found = []
    for operator in _binary_convolutions(file):
        own = nodes.get(operator.inputs[1].name) if operator.inputs[1] is not None else None
        if own is not None:
            # The converter merges layers that compute the same.
            alike = [node.operation for node in nodes.values() if node is own or _computes_alike(graph, node, own)]
            found += [Packed(operator, each.call, each.rows, each.filters) for each in alike if _is_binary(each)]
    return found


def _is_binary(operation: Operation) -> TypeGuard[BinaryConvolution]:
    return isinstance(operation, BinaryConvolution)


def _computes_alike(graph: Graph, one: Node, other: Node) -> bool:
    """Whether two convolutions read the signs of the same value, with the same kernel and options."""
    if _read(graph, one) != _read(graph, other):
        return False
    ours, theirs = vars(one.operation), vars(other.operation)
    return all(np.array_equal(ours[key], theirs[key]) for key in ours if key != "call")


def _read(graph: Graph, node: Node) -> tuple[str, ...]:
    source = graph[node.inputs[0]]
    return source.inputs if isinstance(source.operation, Sign) else node.inputs


def _whole(operator: Operator, number: int, call: BinaryCall, reference: Reference) -> Packed:
    *_, channels, filters = _shape(reference, call)
    rows = np.tile(np.arange(channels), (getattr(call.layer, "groups", 1), 1))
    return Packed(operator, number, rows, np.arange(filters))


def compare_bits(reference: Reference, packed: Sequence[Packed], allow_float: Sequence[str] = ()) -> list[KernelBits]:
    """Compares the kernel of every 1-bit layer, except for `allow_float`, with all of its parts in the file."""
    calls = binary_calls(reference)
    kernels = reference.constants([call.kernels[0] for call in calls])
    return [
        _compare(call.name, _negative(kernel), [part for part in packed if part.call == k])
        for k, (call, kernel) in enumerate(zip(calls, kernels, strict=True))
        if call.name not in allow_float
    ]


def _binary_convolutions(file: File) -> list[Operator]:
    return [operator for operator in file.operators if operator.name == "LceBconv2d"]


def _candidates(operator: Operator, calls: list[BinaryCall], reference: Reference) -> list[int]:
    """The numbers of the layer calls that an operator may come from, the likeliest first."""
    # The output is named after the layer's convolution, or else the input after the layer's sign.
    written = set(operations(operator.outputs[0].name, reference.order))
    read = operations(data_input(operator).name, reference.order)
    by_output = [k for k, call in enumerate(calls) if {reference.order[name] for name in call.convolutions} & written]
    by_input = [k for k, call in enumerate(calls) if any(place in call.call for place in read)]
    return [*by_output, *by_input]


def _shape(reference: Reference, call: BinaryCall) -> tuple[int, ...]:
    name, _, output = call.kernels[0].partition(":")
    return tuple(reference.operation(reference.order[name]).outputs[int(output)].shape)


def _negative(kernel: np.ndarray) -> np.ndarray:
    found = levels(kernel)
    return kernel < 0 if found is None else found[2] < 0


def _compare(name: str, negative: np.ndarray, parts: list[Packed]) -> KernelBits:
    kernel = negative.reshape(1, 1, *negative.shape) if negative.ndim == 2 else negative
    seen = np.zeros(kernel.shape, bool)
    differing = 0
    for part in parts:
        expected = _filters_first(kernel, part)
        weights = part.operator.inputs[1]
        stored = weights.value() if weights is not None else np.zeros(0)
        words = -(-expected.shape[3] // CHANNELS_PER_WORD)
        if stored.ndim != 4 or stored.shape[:3] != expected.shape[:3] or stored.shape[3] != words:
            return KernelBits(name, kernel.size, None)
        differing += _differing(unpack_signs(stored, expected.shape[3]), expected, part.operator)
        for rows, filters in _groups(part):
            seen[:, :, rows[:, np.newaxis], filters] = True
    return KernelBits(name, kernel.size, differing if seen.all() else None)


def _groups(part: Packed) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(part.rows, part.filters.reshape(len(part.rows), -1), strict=True))


def _filters_first(kernel: np.ndarray, part: Packed) -> np.ndarray:
    """The part of a kernel that an operator should contain, with filters as the first axis, as LCE stores it."""
    groups = [kernel[:, :, rows][..., filters] for rows, filters in _groups(part)]
    return np.moveaxis(np.concatenate(groups, axis=-1), -1, 0)


def _differing(stored: np.ndarray, expected: np.ndarray, operator: Operator) -> int:
    per_filter = (stored != expected).reshape(len(expected), -1).sum(1)
    if operator.outputs[0].dtype == "int32":
        # With bitpacked output, a filter with a negative multiplier is stored negated, and so is its threshold.
        per_filter = np.where(per_filter == expected[0].size, 0, per_filter)
    return int(per_filter.sum())
