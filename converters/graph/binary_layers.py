"""Which layers of a model are meant to be 1-bit."""

from dataclasses import dataclass
from typing import Any

import larq as lq

from kbnn.converters.errors import ConversionError
from kbnn.converters.graph.trace import Call, Reference

KERNEL_QUANTIZERS = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchMatMulV2", "Conv3D")


@dataclass(frozen=True)
class BinaryCall:
    """One use of a 1-bit layer; `kernels` are the graph's tensors of its binarized kernels."""

    layer: Any
    call: Call
    convolutions: tuple[str, ...]
    kernels: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.layer.name)


def is_binary(layer: Any) -> bool:
    """Whether a layer binarizes its input and its kernel; quantizers without a precision are taken for 1-bit ones."""
    return has_binary_kernel(layer) and _is_one_bit(getattr(layer, "input_quantizer", None))


def has_binary_kernel(layer: Any) -> bool:
    """Whether a layer binarizes its kernel, or both where it has two."""
    quantizers = [getattr(layer, name) for name in KERNEL_QUANTIZERS if getattr(layer, name, None) is not None]
    return bool(quantizers) and all(_is_one_bit(quantizer) for quantizer in quantizers)


def binary_calls(reference: Reference) -> list[BinaryCall]:
    """The uses of layers that are meant to be 1-bit, in order of execution.

    A binary kernel without an input quantizer is Larq's way for a network's first layer, which reads the real image;
    anywhere else the layer is meant to read signs.

    Raises:
        ConversionError: one of them convolves nothing.
    """
    found = [call for call in reference.calls if _is_meant(reference, call)]
    return [_binary_call(reference, call) for call in sorted(found, key=lambda call: call.first)]


def _is_meant(reference: Reference, call: Call) -> bool:
    if is_binary(call.layer):
        return True
    bare = has_binary_kernel(call.layer) and getattr(call.layer, "input_quantizer", None) is None
    return bare and reference.depends_on(call.inputs[0], CONVOLUTIONS)


def _is_one_bit(quantizer: Any) -> bool:
    is_set = quantizer is not None and not isinstance(quantizer, lq.quantizers.NoOp)
    return is_set and getattr(quantizer, "precision", 1) == 1


def _binary_call(reference: Reference, call: Call) -> BinaryCall:
    convolutions = reference.operations(call, CONVOLUTIONS)
    if not convolutions:
        raise ConversionError(f"layer '{call.layer.name}' has a 1-bit kernel that nothing is convolved with: remove it")
    return BinaryCall(
        call.layer,
        call,
        tuple(operation.name for operation in convolutions),
        tuple(operation.inputs[1].name for operation in convolutions),
    )
