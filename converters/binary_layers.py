"""Which layers of a model are meant to be 1-bit, and the signs of their kernels."""

from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from kbnn.converters.errors import ConversionError
from kbnn.converters.reference import Call, Reference

KERNEL_QUANTIZERS = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MatMul", "BatchMatMulV2", "Conv3D")


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
    kernels = [getattr(layer, name, None) for name in KERNEL_QUANTIZERS]
    quantizers = [getattr(layer, "input_quantizer", None), *(kernel for kernel in kernels if kernel is not None)]
    return len(quantizers) > 1 and all(_is_one_bit(quantizer) for quantizer in quantizers)


def binary_layers(model: tf.keras.Model) -> list[Any]:
    """The model's 1-bit layers, nested models' included, each once."""
    return [layer for layer in model.submodules if isinstance(layer, tf.keras.layers.Layer) and is_binary(layer)]


def binary_calls(reference: Reference) -> list[BinaryCall]:
    """The uses of 1-bit layers in order of execution.

    Raises:
        ConversionError: one of them convolves nothing.
    """
    found = [_binary_call(reference, call) for call in reference.calls if is_binary(call.layer)]
    return sorted(found, key=lambda binary: binary.call.first)


def filters(kernel: np.ndarray) -> np.ndarray:
    """Where a kernel `(kh, kw, C, filters)` or `(C, filters)` is negative, filters first as in LCE's files."""
    negative = np.moveaxis(kernel < 0, -1, 0)
    return negative if negative.ndim == 4 else negative.reshape(len(negative), 1, 1, -1)


def _is_one_bit(quantizer: Any) -> bool:
    is_set = quantizer is not None and not isinstance(quantizer, lq.quantizers.NoOp)
    return is_set and getattr(quantizer, "precision", 1) == 1


def _binary_call(reference: Reference, call: Call) -> BinaryCall:
    convolutions = reference.operations(call, _CONVOLUTIONS)
    if not convolutions:
        raise ConversionError(f"layer '{call.layer.name}' has a 1-bit kernel that nothing is convolved with: remove it")
    return BinaryCall(
        call.layer,
        call,
        tuple(operation.name for operation in convolutions),
        tuple(operation.inputs[1].name for operation in convolutions),
    )
