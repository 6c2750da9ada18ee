"""Silent fallbacks: layers that look 1-bit but are float, because LCE did not recognize them."""

from collections.abc import Collection

import numpy as np

from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.operators import CONVOLUTIONS, data_input, layer_name, weights

# Operators that only move values, and those that scale or shift them by constants.
_MOVES = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "CONCATENATION", "SPLIT", "STRIDED_SLICE")
_SCALES = ("MUL", "ADD", "SUB", "DIV", "QUANTIZE", "DEQUANTIZE")
# With fewer weights a filter can have a single magnitude by chance.
_FEWEST_WEIGHTS = 8
# Layers can share kernels; comparing all of them must still take time proportional to the file's size.
_KERNEL_BYTES_PER_BYTE = 16


def silent_fallbacks(file: File) -> list[str]:
    """The layers that look 1-bit but are float, each with the evidence."""
    found = []
    moved, scaled = _origins(file, _MOVES), _origins(file, (*_MOVES, *_SCALES))
    is_binary = _BinaryKernels(file)
    for operator in file.operators:
        if operator.name not in CONVOLUTIONS:
            continue
        source = data_input(operator).index
        if source in moved and moved[source].name == "LceDequantize":
            evidence = f"{operator.name} reads 1-bit values that were unpacked to float"
        elif source in scaled and is_binary(operator):
            evidence = f"{operator.name} has the kernel of a 1-bit layer, but its input is not a sign"
        else:
            continue
        found.append(f"{layer_name(file, operator)}: {evidence}")
    return found


def _origins(file: File, through: Collection[str]) -> dict[int, Operator]:
    """Tensor index -> the operator that computed its values, looking through the operators named in `through`.

    The file's inputs have none. It takes one pass in execution order, so that cycles in a hostile file do no harm.
    """
    found: dict[int, Operator] = {}
    for operator in file.operators:
        origin: Operator | None = operator
        if operator.name in through and operator.operands:
            origin = found.get(operator.operands[0].index)
        for tensor in operator.outputs:
            if origin is None:
                found.pop(tensor.index, None)
            else:
                found[tensor.index] = origin
    return found


class _BinaryKernels:
    """Tells whether every filter of an operator's kernel is ±s; a kernel that layers share is examined once.

    Raises:
        ValueError: the kernels are far larger than the file, because many layers share bytes in different shapes.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._known: dict[tuple[object, ...], bool] = {}
        self._bytes_left = _KERNEL_BYTES_PER_BYTE * file.size_bytes

    def __call__(self, operator: Operator) -> bool:
        kernel = weights(self._file, operator)
        if kernel.data is None or kernel.dtype not in ("float32", "int8"):
            return False
        by_channel = operator.name == "DEPTHWISE_CONV_2D"
        key = (kernel.data.ctypes.data, kernel.size_bytes, kernel.shape, kernel.dtype, by_channel)
        if key not in self._known:
            self._bytes_left -= kernel.size_bytes
            if self._bytes_left < 0:
                raise ValueError(f"kernels of more than {_KERNEL_BYTES_PER_BYTE} times the size of the file")
            self._known[key] = _is_binary(kernel, by_channel)
        return self._known[key]


def _is_binary(stored: Tensor, by_channel: bool) -> bool:
    kernel = np.abs(stored.value().astype(np.float32))
    filters = np.moveaxis(kernel, -1, 0) if by_channel else kernel
    filters = filters.reshape(len(filters), -1)
    if filters.shape[1] < _FEWEST_WEIGHTS:
        return False
    # The converter, too, treats magnitudes within 0.5 % as equal.
    smallest, largest = filters.min(1), filters.max(1)
    return bool(np.all(largest > 0) and np.all(largest - smallest <= 0.005 * largest))
