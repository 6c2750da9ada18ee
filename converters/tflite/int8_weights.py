"""Stores real-valued weights in 8 or 16 bits, with one scale per output channel; arithmetic stays in float.

The file contains w = s·q. With 8 bits, a DEQUANTIZE computes the float kernel once, when the file is loaded. For 16
bits, DEQUANTIZE has no scale per channel, so a MUL follows. The file is compared with Keras after the same rounding of
its weights.

A binary network amplifies differences: rounding the stem of a ResNet-20 to 8 bits changes the class of as many images
as noise of half a grey level (results/int8_sources.csv), and no correction of biases, scales or statistics undoes that.
The earlier the layer, the more signs it can flip: the stem in 16 bits changes the class of 3.2 % of the images, both
shortcuts in 16 bits 0.5 %, the classifier in 8 bits 0.3 %. So a small stem stays in float32, other layers whose values
reach a sign are stored in 16 bits, and the rest in 8. Where 16 bits would be slower, a convolution stays in 32 and a
dense layer in 8 (`passes/forms.py`).
"""

import math
from collections.abc import Sequence

import numpy as np

from kbnn.converters.graph.binary_layers import binary_calls
from kbnn.converters.graph.graph import Graph
from kbnn.converters.graph.operations import BinaryConvolution, Convolution, Dense, Opaque, Sign
from kbnn.converters.graph.rounding import rounded_kernel, scales_per_channel
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.surgery import Surgery

# A smaller kernel saves nothing, because its scales and the operators take as much memory.
_SMALLEST_BYTES = 1024
# The largest float32 kernel of a stem that is not rounded: 16 bits would save half of it. A 7x7x3x64 stem has 37,632.
_LARGEST_STEM_BYTES = 64 * 1024


def before_signs(graph: Graph) -> tuple[str, ...]:
    """The real-valued layers whose values reach a sign in a later layer."""
    read: set[str] = set()
    for node in reversed(list(graph)):
        if node.name in read or isinstance(node.operation, Sign):
            read.update(node.inputs)
    found = [node for node in graph if node.name in read and node.operation.convolves]
    real = [node.layer for node in found if not isinstance(node.operation, BinaryConvolution | Opaque)]
    return tuple(dict.fromkeys(real))


def small_stem(graph: Graph) -> tuple[str, ...]:
    """The layers of `before_signs` that no sign precedes and whose kernels are small."""
    after: set[str] = set()
    for node in graph:
        if isinstance(node.operation, Sign) or not after.isdisjoint(node.inputs):
            after.add(node.name)
    sizes = {
        node.layer: 4 * node.operation.kernel.size
        for node in graph
        if node.name not in after and isinstance(node.operation, Convolution | Dense)
    }
    return tuple(layer for layer in before_signs(graph) if sizes.get(layer, math.inf) <= _LARGEST_STEM_BYTES)


def rounded(reference: Reference, in_16_bits: Sequence[str] = (), in_32_bits: Sequence[str] = ()) -> Reference:
    """A reference with the kernels of real-valued layers rounded to int8, or to int16 for the layers `in_16_bits`.

    The layers `in_32_bits` are not rounded.
    """
    layers = {name: layer for name, layer in _real_kernels(reference).items() if layer not in in_32_bits}
    bits = {name: 16 if layer in in_16_bits else 8 for name, layer in layers.items()}
    kernels = dict(zip(bits, reference.constants(list(bits)), strict=True))
    return reference.with_constants(
        {
            name: rounded_kernel(kernel, bits[name])
            for name, kernel in kernels.items()
            if kernel.nbytes >= _SMALLEST_BYTES
        }
    )


def stored_as_int8(file: File, in_16_bits: Sequence[str] = (), in_32_bits: Sequence[str] = ()) -> File:
    """Stores the weights of a file's real-valued convolutions and dense layers as int8, or int16 for `in_16_bits`.

    Those of `in_32_bits` stay float32.
    """
    weights = {
        tensor.index: tensor
        for tensor in _real_weights(file)
        if tensor.size_bytes >= _SMALLEST_BYTES and _layer(tensor) not in in_32_bits
    }
    if not weights:
        return file
    surgery = Surgery(file)
    for tensor in weights.values():
        store = _as_int16 if _layer(tensor) in in_16_bits else _as_int8
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


def kernel_layer(operator: Operator) -> str:
    """The Keras layer of the constant kernel that an operator reads."""
    kernel = operator.inputs[1]
    return "" if kernel is None else _layer(kernel)


def _layer(weights: Tensor) -> str:
    return weights.name.removesuffix("/kernel")


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
