"""Which tensor of a file is which value of Keras's, and the file taken apart at those tensors.

The converter names each tensor after the graph operation whose value it holds; where it fused several, after all of
them, of which the last one executed gives the value.
"""

import copy
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn.converters import flatbuffer
from kbnn.converters.flatbuffer import File, Tensor
from kbnn.converters.reference import Reference, is_quantizer

_WORD = 32


@dataclass(frozen=True)
class Aligned:
    """A tensor of the file with the graph tensor that it equals; `presign` is what a sign was taken of."""

    tensor: Tensor
    operation: int
    value: str
    presign: str | None
    layer: str

    @property
    def is_bitpacked(self) -> bool:
        return self.tensor.dtype == "int32"


def align(file: File, reference: Reference) -> dict[int, Aligned]:
    """Tensor index -> what it equals, for every activation whose name tells."""
    inputs = {tensor.index for tensor in file.inputs.values()}
    found = {}
    for tensor in file.tensors:
        if tensor.data is None and tensor.index not in inputs and tensor.name:
            operation = _last_operation(tensor, reference)
            if operation is not None:
                found[tensor.index] = _aligned(tensor, operation, reference)
    for name, tensor in file.outputs.items():
        value = _output(name, file, reference)
        if value is not None and tensor.index in file.producers:
            found[tensor.index] = _aligned(tensor, value, reference)
    return found


def take_apart(file: File, aligned: dict[int, Aligned]) -> tuple[bytes, list[Aligned], list[Aligned]]:
    """The file with every aligned tensor that is read turned into an input, and every one that is computed into an
    output: each operator between them then works on what it is given, not on what those before it made.

    Returns:
        The bytes, the additional inputs in order (after the file's own), and the outputs in order.
    """
    model = flatbuffer.tree(file.data)
    graph = model.subgraphs[0]
    fed = [aligned[index] for index in sorted(aligned) if file.consumers[index]]
    computed = [aligned[index] for index in sorted(aligned) if index in file.producers]
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
    """Signs `(..., C)` as LCE packs them: `(..., ceil(C / 32))` int32, a bit is 1 where the value is negative."""
    negative = values < 0
    missing = -negative.shape[-1] % _WORD
    padded = np.pad(negative, [(0, 0)] * (negative.ndim - 1) + [(0, missing)])
    return np.packbits(padded, axis=-1, bitorder="little").view("<i4")


def unpack_signs(words: np.ndarray, channels: int) -> np.ndarray:
    """Where packed signs are negative: `(..., words)` to bool `(..., channels)`."""
    octets = np.ascontiguousarray(words, "<i4").view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels].astype(bool)


def _last_operation(tensor: Tensor, reference: Reference) -> int | None:
    indices = (_find(piece, reference) for piece in tensor.name.split(";"))
    fitting = [k for k in indices if k is not None and _fits(tensor, reference.operation(k).outputs[0])]
    return max(fitting, default=None)


def _output(name: str, file: File, reference: Reference) -> int | None:
    """The operation behind an output; files not made by us may name a single output otherwise."""
    if len(file.outputs) == len(reference.outputs) == 1:
        name = next(iter(reference.outputs))
    return reference.index(reference.outputs[name].split(":")[0]) if name in reference.outputs else None


def _find(piece: str, reference: Reference) -> int | None:
    """An operation's index by its name in a file, where repeated names are numbered."""
    found = reference.index(piece)
    return found if found is not None else reference.index(piece.rstrip("0123456789"))


def _fits(tensor: Tensor, value: tf.Tensor) -> bool:
    if value.shape.rank != len(tensor.shape) or value.shape.rank == 0 or not value.dtype.is_floating:
        return False
    if tensor.dtype != "int32":
        return tuple(value.shape[1:]) == tensor.shape[1:]
    words = -(-value.shape[-1] // _WORD)
    return (*value.shape[1:-1], words) == tensor.shape[1:]


def _aligned(tensor: Tensor, operation: int, reference: Reference) -> Aligned:
    node = reference.operation(operation)
    presign, layer = _presign(operation, reference), reference.layer_name(operation)
    return Aligned(tensor, operation, node.outputs[0].name, presign, layer)


def _presign(operation: int, reference: Reference) -> str | None:
    call = reference.innermost(operation)
    if call is not None and is_quantizer(call.layer):
        return call.inputs[0]
    node = reference.operation(operation)
    if node.type in ("Select", "SelectV2"):
        node = node.inputs[0].op
    return str(node.inputs[0].name) if node.type in ("Sign", "Greater", "GreaterEqual") else None
