"""Stores real-valued weights in 8 or 16 bits, with one scale per output channel; arithmetic stays in float.

The file contains w = s·q. With 8 bits, a DEQUANTIZE computes the float kernel once, when the file is loaded. For 16
bits, DEQUANTIZE has no scale per channel, so a MUL follows. The file is compared with Keras after the same rounding of
its weights.

A binary network amplifies differences: rounding the stem of a ResNet-20 to 8 bits changes the class of as many images
as noise of half a grey level (results/int8.csv), and no correction of biases, scales or statistics undoes that. Layers
whose values reach a sign are therefore stored in 16 bits. They are small; the classifier stays in 8 bits.
"""

from collections.abc import Sequence

import numpy as np

from kbnn.converters.graph.binary_layers import binary_calls
from kbnn.converters.graph.graph import Graph
from kbnn.converters.graph.operations import BinaryConvolution, Opaque, Sign
from kbnn.converters.graph.rounding import rounded_kernel, scales_per_channel
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite.flatbuffer import File, Tensor
from kbnn.converters.tflite.surgery import Surgery

# A smaller kernel saves nothing, because its scales and the operators take as much memory.
_SMALLEST_BYTES = 1024


def before_signs(graph: Graph) -> tuple[str, ...]:
    """The real-valued layers whose values reach a sign in a later layer."""
    read: set[str] = set()
    for node in reversed(list(graph)):
        if node.name in read or isinstance(node.operation, Sign):
            read.update(node.inputs)
    found = [node for node in graph if node.name in read and node.operation.convolves]
    real = [node.layer for node in found if not isinstance(node.operation, BinaryConvolution | Opaque)]
    return tuple(dict.fromkeys(real))


def rounded(reference: Reference, in_16_bits: Sequence[str] = ()) -> Reference:
    """A reference with the kernels of real-valued layers rounded to int8, or to int16 for the layers `in_16_bits`."""
    bits = {name: 16 if layer in in_16_bits else 8 for name, layer in _real_kernels(reference).items()}
    kernels = dict(zip(bits, reference.constants(list(bits)), strict=True))
    return reference.with_constants(
        {
            name: rounded_kernel(kernel, bits[name])
            for name, kernel in kernels.items()
            if kernel.nbytes >= _SMALLEST_BYTES
        }
    )


def stored_as_int8(file: File, in_16_bits: Sequence[str] = ()) -> File:
    """Stores the weights of a file's real-valued convolutions and dense layers as int8, or int16 for `in_16_bits`."""
    weights = {tensor.index: tensor for tensor in _real_weights(file) if tensor.size_bytes >= _SMALLEST_BYTES}
    if not weights:
        return file
    surgery = Surgery(file)
    for tensor in weights.values():
        store = _as_int16 if tensor.name.removesuffix("/kernel") in in_16_bits else _as_int8
        store(surgery, tensor)
    return surgery.file()


def _as_int8(surgery: Surgery, weights: Tensor) -> None:
    values = weights.value()
    scales = scales_per_channel(values, 0)
    stored = surgery.constant(weights.name, np.round(values / scales).astype(np.int8), scales)
    # The first version of DEQUANTIZE with a scale per channel.
    surgery.add("DEQUANTIZE", 5, [stored], surgery.computed(weights, f"{weights.name}/float"))


def _as_int16(surgery: Surgery, weights: Tensor) -> None:
    values = weights.value()
    scales = scales_per_channel(values, 0, bits=16)
    stored = surgery.constant(weights.name, np.round(values / scales).astype(np.int16), np.ones(1, np.float32))
    floats = surgery.value(f"{weights.name}/integers", weights.shape)
    # The first version of DEQUANTIZE for int16.
    surgery.add("DEQUANTIZE", 3, [stored], floats)
    factors = surgery.constant(f"{weights.name}/scales", scales)
    surgery.add("MUL", 1, [floats, factors], surgery.computed(weights, f"{weights.name}/float"), "MulOptions")


def _real_kernels(reference: Reference) -> dict[str, str]:
    """The kernel tensors of all convolutions and matrix products outside of 1-bit layers, with their layers."""
    binary = {name for call in binary_calls(reference) for name in call.kernels}
    found: dict[str, str] = {}
    for operation in reference.operations(reference.root, ("Conv2D", "MatMul")):
        name = str(operation.inputs[1].name)
        if name not in binary and reference.is_constant(name):
            found.setdefault(name, reference.layer_name(reference.order[operation.name]))
    return found


def _real_weights(file: File) -> list[Tensor]:
    found = [operator.inputs[1] for operator in file.operators if operator.name in ("CONV_2D", "FULLY_CONNECTED")]
    return [tensor for tensor in found if tensor is not None and tensor.data is not None and tensor.dtype == "float32"]
