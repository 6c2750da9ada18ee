"""Which layers of a model are meant to be 1-bit."""

from dataclasses import dataclass
from typing import Any

from kbnn.converters.errors import ConversionError
from kbnn.converters.graph.slices import sign_source
from kbnn.converters.graph.trace import Call, Reference
from kbnn.structure import has_binary_kernel, is_binary

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


def binary_calls(reference: Reference) -> list[BinaryCall]:
    """The uses of layers that are meant to be 1-bit, in order of execution; those that no output needs are left out.

    A binary kernel without an input quantizer is Larq's way for a network's first layer, which reads the real image;
    anywhere else the layer is meant to read signs.

    Raises:
        ConversionError: one of them convolves nothing.
    """
    found = [call for call in reference.calls if call.outputs and _is_meant(reference, call)]
    return [_binary_call(reference, call) for call in sorted(found, key=lambda call: call.first)]


def _is_meant(reference: Reference, call: Call) -> bool:
    if is_binary(call.layer):
        return True
    if not has_binary_kernel(call.layer) or getattr(call.layer, "input_quantizer", None) is not None:
        return False
    source = call.inputs[0]
    return reference.depends_on(source, CONVOLUTIONS) or sign_source(reference, source) is not None


def _binary_call(reference: Reference, call: Call) -> BinaryCall:
    convolutions = reference.operations(call, CONVOLUTIONS)
    if not convolutions:
        raise ConversionError(
            f"layer '{call.layer.name}' is a {type(call.layer).__name__}, which LCE has no 1-bit operator for: use "
            f"kbnn.layers.BinaryConv2D, or build it without quantizers"
        )
    return BinaryCall(
        call.layer,
        call,
        tuple(operation.name for operation in convolutions),
        tuple(operation.inputs[1].name for operation in convolutions),
    )
