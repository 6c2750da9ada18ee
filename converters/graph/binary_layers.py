"""Which layers of a model are meant to be 1-bit."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn.converters.errors import ConversionError
from kbnn.converters.graph.slices import sign_source
from kbnn.converters.graph.trace import Call, Reference
from kbnn.quantizers import AdaptiveSign
from kbnn.structure import has_binary_kernel, is_binary

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchMatMulV2", "Conv3D")


@dataclass(frozen=True)
class BinaryCall:
    """One call of a 1-bit layer, with the names of its convolutions and of their binarized kernels in the graph."""

    layer: tf.keras.layers.Layer
    call: Call
    convolutions: tuple[str, ...]
    kernels: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.layer.name)


def has_threshold(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer binarizes its input at a learned threshold: sign(x - threshold)."""
    return isinstance(getattr(layer, "input_quantizer", None), AdaptiveSign)


def levels(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Splits a kernel with two values per filter into centre + distance·signs.

    Kernels of ±s have the centre 0, and so do filters whose weights are all equal.

    Returns:
        Centre and distance per filter in float64, and the signs in the shape of the kernel; None if a filter has more
        than two values.
    """
    weights = kernel.astype(np.float64).reshape(-1, kernel.shape[-1])
    highest, lowest = weights.max(0), weights.min(0)
    is_constant = highest == lowest
    centre = np.where(is_constant, 0.0, (highest + lowest) / 2)
    distance = np.where(is_constant, np.abs(highest), (highest - lowest) / 2)
    # Kernels that only scale their signs have opposite values, up to rounding.
    centre = np.where(np.abs(centre) <= 1e-6 * distance, 0.0, centre)
    signs = np.where(weights < centre, -1.0, 1.0)
    if np.any(np.abs(weights - (centre + distance * signs)) > 1e-6 * np.maximum(highest, -lowest)):
        return None
    return centre, distance, signs.astype(np.float32).reshape(kernel.shape)


def binary_calls(reference: Reference) -> list[BinaryCall]:
    """The calls of layers that are meant to be 1-bit, in execution order, except those that no output depends on.

    In Larq, the first layer of a network has a binary kernel and no input quantizer, because it reads the real-valued
    image. Anywhere else such a layer is expected to read signs that an earlier layer computed.

    Raises:
        ConversionError: such a layer contains no convolution or matrix product.
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
