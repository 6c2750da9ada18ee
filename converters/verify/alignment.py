"""Aligns the tensors of a file with the values that Keras computes, and takes the file apart at these tensors."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Sign
from kbnn.converters.graph.trace import Reference, is_quantizer
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File, Tensor
from kbnn.converters.tflite.lce import CHANNELS_PER_WORD
from kbnn.converters.tflite.names import operations, value_name


@dataclass(frozen=True)
class Aligned:
    """A tensor of the file that should hold `keras[..., order] + shift`, where `value` names Keras's tensor.

    A bitpacked tensor holds the signs of these values, an int8 tensor the nearest levels. `step` is how far rounding
    moves a value: the distance between its levels, or between those of its input for a sign whose input is not compared
    by itself. `share` is how far rounded constants move a value, as a fraction of its rms.
    """

    tensor: Tensor
    value: str
    layer: str
    order: np.ndarray | None = None
    shift: np.ndarray | None = None
    step: float = 0.0
    share: float = 0.0

    @property
    def is_bitpacked(self) -> bool:
        return self.tensor.dtype == "int32"

    def expected(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The values that the tensor should hold for a batch; a bitpacked tensor should hold their signs."""
        keras = values[self.value]
        keras = keras.reshape(len(keras), *self.tensor.shape[1:-1], keras.shape[-1])
        ordered = keras if self.order is None else keras[..., self.order]
        return ordered if self.shift is None else ordered + self.shift.astype(np.float32)


def align(file: File, reference: Reference, graph: Graph | None) -> dict[int, Aligned]:
    """Tensor index -> what the tensor should hold.

    In a file made by kbnn, tensors are named after the nodes of its graph; in others, after Keras's operations.
    """
    found = {}
    for tensor in _computed(file, ("float32",)):
        name = tensor.name if graph is not None else value_name(file, tensor)
        aligned = _by_graph(tensor, graph, reference) if graph is not None else None
        aligned = aligned or _by_names(tensor, name, _place_among_outputs(file, tensor), reference)
        if aligned is not None:
            found[tensor.index] = aligned
    for name, tensor in file.outputs.items():
        value = _output(name, file, reference)
        if graph is None and value is not None:
            found[tensor.index] = _aligned(tensor, value, 0, reference)
    return {index: aligned for index, aligned in found.items() if reference.is_per_sample(aligned.value)}


def align_rounded(file: File, graph: Graph) -> dict[int, Aligned]:
    """As `align`, for a file in int8, whose tensors hold the values of the graph instead of Keras's."""
    found, tensors = {}, _computed(file, ("float32", "int8"))
    named = {tensor.name for tensor in tensors}
    for tensor in tensors:
        node = graph.nodes.get(tensor.name)
        # The batch is 1, so a larger first axis holds parts of a sample, such as the frames of a video.
        if node is None or not _has_levels(tensor) or tensor.shape[:1] != (1,):
            continue
        source = graph[node.inputs[0]] if isinstance(node.operation, Sign) else node
        # A value that is compared by itself is also given as an input, so that its sign is exact.
        is_given = source is not node and source.name in named
        step, share = (0.0, 0.0) if is_given else _moved(source)
        if math.prod(source.shape[:-1]) == math.prod(tensor.shape[1:-1]):
            found[tensor.index] = Aligned(tensor, source.name, node.layer, step=step, share=share)
    return found


def _moved(node: Node) -> tuple[float, float]:
    """The `step` and the `share` of a node's value; see `Aligned`."""
    if node.limits is None:
        return node.operation.rounding_step, 0.0
    return (node.limits[1] - node.limits[0]) / 255, node.operation.rounding_share


def take_apart(file: File, aligned: dict[int, Aligned]) -> tuple[bytes, list[Aligned], list[Aligned]]:
    """Takes a file apart, so that every operator works on given values instead of the results of earlier operators.

    Every aligned tensor that an operator reads becomes an input, and every aligned tensor becomes an output.

    Returns:
        The bytes, the additional inputs in order (after the file's own inputs), and the outputs in order.
    """
    model = flatbuffer.tree(file.data)
    graph = model.subgraphs[0]
    fed = [aligned[index] for index in sorted(aligned) if file.consumers[index]]
    computed = [aligned[index] for index in sorted(aligned)]
    replaced = {}
    for item in fed:
        replaced[item.tensor.index] = len(graph.tensors)
        graph.tensors.append(copy.copy(graph.tensors[item.tensor.index]))
    for operator in graph.operators:
        operator.inputs = np.array([replaced.get(int(index), int(index)) for index in operator.inputs], np.int32)
    graph.inputs = np.array([*graph.inputs, *(replaced[item.tensor.index] for item in fed)], np.int32)
    graph.outputs = np.array([item.tensor.index for item in computed], np.int32)
    model.signatureDefs = None
    return flatbuffer.pack(model), fed, computed


def pack_signs(values: np.ndarray) -> np.ndarray:
    """Packs signs `(..., C)` as LCE does: int32 `(..., ceil(C / 32))`, in which a bit is 1 if the value is negative."""
    negative = values < 0
    missing = -negative.shape[-1] % CHANNELS_PER_WORD
    padded = np.pad(negative, [(0, 0)] * (negative.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(np.packbits(padded, axis=-1, bitorder="little")).view("<i4")


def unpack_signs(words: np.ndarray, channels: int) -> np.ndarray:
    """Unpacks signs `(..., words)` to bool `(..., channels)`, True where the sign is negative."""
    octets = np.ascontiguousarray(words, "<i4").view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels].astype(bool)


def to_int8(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """Rounds values to the nearest levels of an int8 tensor."""
    levels = np.round(values / tensor.scales[0]) + tensor.zero_points[0]
    return np.clip(levels, -128, 127).astype(np.int8)


def from_int8(tensor: Tensor, levels: np.ndarray) -> np.ndarray:
    """The values of an int8 tensor's levels."""
    return (levels.astype(np.float64) - tensor.zero_points[0]) * tensor.scales[0]


def _has_levels(tensor: Tensor) -> bool:
    """Whether an int8 tensor has one valid scale and zero point; True for a tensor of another type."""
    if tensor.dtype != "int8":
        return True
    return len(tensor.scales) == len(tensor.zero_points) == 1 and 0 < tensor.scales[0] < np.inf


def _computed(file: File, kinds: tuple[str, ...]) -> list[Tensor]:
    """The tensors that the file's operators write, if they are bitpacked or of one of the data types `kinds`."""
    return [
        tensor
        for operator in file.operators
        for tensor in operator.outputs
        if tensor.dtype in kinds or (operator.name.startswith("Lce") and tensor.dtype == "int32")
    ]


def _by_graph(tensor: Tensor, graph: Graph, reference: Reference) -> Aligned | None:
    node = graph.nodes.get(tensor.name)
    if node is None or node.origin is None or (isinstance(node.operation, Sign) and tensor.dtype != "int32"):
        return None
    # In files of earlier versions, the sign before a max-pool has this name, with a larger height and width.
    if math.prod(reference.shape(node.origin.value)[:-1]) != math.prod(tensor.shape[1:-1]):
        return None
    return Aligned(tensor, node.origin.value, node.layer, node.origin.order, node.origin.shift)


def _by_names(tensor: Tensor, name: str, output: int, reference: Reference) -> Aligned | None:
    places = [place for place in operations(name, reference.order) if _fits(tensor, reference, place, output)]
    return _aligned(tensor, max(places), output, reference) if places else None


def _place_among_outputs(file: File, tensor: Tensor) -> int:
    """The index of a tensor among its operator's outputs; the outputs of a split all have the same name."""
    producer = file.producers.get(tensor.index)
    return [other.index for other in producer.outputs].index(tensor.index) if producer is not None else 0


def _output(name: str, file: File, reference: Reference) -> int | None:
    """The operation that computes an output; a single output may have another name in a file not made by kbnn."""
    if len(file.outputs) == len(reference.outputs) == 1:
        name = next(iter(reference.outputs))
    return reference.order.get(reference.outputs[name].split(":")[0]) if name in reference.outputs else None


def _fits(tensor: Tensor, reference: Reference, place: int, output: int) -> bool:
    values = reference.operation(place).outputs
    if output >= len(values):
        return False
    value: tf.Tensor = values[output]
    if value.shape.rank != len(tensor.shape) or value.shape.rank == 0 or not value.dtype.is_floating:
        return False
    if tensor.dtype != "int32":
        return tuple(value.shape[1:]) == tensor.shape[1:]
    words = -(-value.shape[-1] // CHANNELS_PER_WORD)
    return (*value.shape[1:-1], words) == tensor.shape[1:]


def _aligned(tensor: Tensor, place: int, output: int, reference: Reference) -> Aligned:
    value = _presign(place, reference) if tensor.dtype == "int32" else None
    return Aligned(tensor, value or reference.operation(place).outputs[output].name, reference.layer_name(place))


def _presign(place: int, reference: Reference) -> str | None:
    """The tensor whose sign an operation takes, or None if that is not known."""
    call = reference.innermost(place)
    if call is not None and is_quantizer(call.layer):
        return call.inputs[0]
    node = reference.operation(place)
    if node.type in ("Select", "SelectV2"):
        node = node.inputs[0].op
    return str(node.inputs[0].name) if node.type in ("Sign", "Greater", "GreaterEqual") else None
