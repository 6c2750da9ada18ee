"""Every layer of a file by itself, fed with Keras's own input."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kbnn.converters.tflite import interpreter
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.verify.alignment import Aligned, from_int8, pack_signs, take_apart, to_int8, unpack_signs

# Of the range of a layer's values.
TOLERANCE = 1e-4
# Of the rms of what the sign is taken of: nearer to zero, rounding decides.
FLIP_TOLERANCE = 1e-4
# Of the steps between the levels of a value in int8: operators round their constants and results as each can.
STEP_TOLERANCE = 2.0
# Of the rms of what the rounding of constants moves a value by: the largest of a million is 5 times as much.
SHARE_TOLERANCE = 6.0

Values = Callable[[Mapping[str, np.ndarray], Sequence[str]], list[np.ndarray]]


@dataclass(frozen=True)
class LayerParity:
    """One tensor of the file against Keras on one kernel; `difference` is relative to the range of Keras's values.

    `flips` counts the signs that differ though Keras's value is not near zero.
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
    """Every tensor of the file that has a counterpart in Keras, computed from Keras's own values, on each kernel.

    `values_of` gives Keras's values of inputs; for a file in int8, those of the graph that it was made of.
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
