"""Compares every layer of a file by itself with Keras, with Keras's values as its input."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kbnn.converters.tflite import interpreter
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.verify.alignment import Aligned, from_int8, pack_signs, take_apart, to_int8, unpack_signs

# The largest allowed difference of a value, as a fraction of the range of the layer's values.
TOLERANCE = 1e-4
# Signs of values below this fraction of their rms may differ, because rounding decides them.
FLIP_TOLERANCE = 1e-4
# The largest allowed difference in int8, in steps between levels: operators round constants and results differently.
STEP_TOLERANCE = 2.0
# The same for the rounding of constants, in rms of its effect: the largest effect on a million values is 5 times that.
SHARE_TOLERANCE = 6.0

Values = Callable[[Mapping[str, np.ndarray], Sequence[str]], list[np.ndarray]]


@dataclass(frozen=True)
class LayerParity:
    """How one tensor of the file differs from Keras on one kernel.

    `difference` is a fraction of the range of Keras's values; `flips` is the number of signs that differ although
    Keras's value is not close to zero.
    """

    name: str
    kernel: str
    values: int
    difference: float
    flips: int
    passed: bool


def compare_layers(
    values_of: Values,
    file: File,
    aligned: dict[int, Aligned],
    inputs: Mapping[str, np.ndarray],
    kernels: Sequence[str],
) -> list[LayerParity]:
    """Compares every aligned tensor, computed from Keras's values, on each kernel.

    `values_of` computes Keras's values, or for a file in int8 those of the graph that the file was made from.
    """
    if not aligned:
        return []
    apart, fed, computed = take_apart(file, aligned)
    needed = list(dict.fromkeys(item.value for item in [*fed, *computed]))
    values = dict(zip(needed, values_of(inputs, needed), strict=True))
    given = [*inputs.values(), *(_stored(item, item.expected(values)) for item in fed)]
    found = []
    for kernel in kernels:
        outputs = interpreter.run(apart, given, kernel=kernel)
        found += [
            _compare(item, kernel, item.expected(values), output)
            for item, output in zip(computed, outputs, strict=True)
        ]
    return found


def _stored(item: Aligned, value: np.ndarray) -> np.ndarray:
    if item.is_bitpacked:
        return pack_signs(value)
    return to_int8(item.tensor, value) if item.tensor.dtype == "int8" else value.astype(np.float32)


def _compare(item: Aligned, kernel: str, expected: np.ndarray, output: np.ndarray) -> LayerParity:
    words = (*expected.shape[:-1], -(-expected.shape[-1] // 32))
    if output.shape != (words if item.is_bitpacked else expected.shape):
        return LayerParity(item.layer, kernel, expected.size, np.inf, 0, passed=False)
    if not item.is_bitpacked:
        if item.tensor.dtype == "int8":
            output = from_int8(item.tensor, output)
        # A damaged file may yield infinity or NaN, which no tolerance covers.
        with np.errstate(invalid="ignore"):
            largest = float(np.abs(output.astype(np.float64) - expected).max())
        span = float(np.ptp(expected)) or 1.0
        passed = largest <= max(TOLERANCE * span, _rounding(item, expected))
        return LayerParity(item.layer, kernel, expected.size, largest / span, 0, passed)
    differs = unpack_signs(output, expected.shape[-1]) != (expected < 0)
    matters = np.abs(expected) > max(FLIP_TOLERANCE * _rms(expected), _rounding(item, expected))
    flips = int((differs & matters).sum())
    return LayerParity(item.layer, kernel, expected.size, 0.0, flips, not flips)


def _rounding(item: Aligned, expected: np.ndarray) -> float:
    """How far rounding to int8 may move a value from what the rounded graph computes."""
    return STEP_TOLERANCE * item.step + SHARE_TOLERANCE * item.share * _rms(expected)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
