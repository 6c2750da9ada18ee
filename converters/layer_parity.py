"""Every layer of a file by itself, fed with Keras's own input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kbnn.converters import native
from kbnn.converters.alignment import Aligned, pack_signs, take_apart, unpack_signs
from kbnn.converters.flatbuffer import File
from kbnn.converters.reference import Reference

# Of the range of a layer's values.
TOLERANCE = 1e-4
# Of the rms of what the sign is taken of: nearer to zero, rounding decides.
FLIP_TOLERANCE = 1e-4


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
    reference: Reference,
    file: File,
    aligned: dict[int, Aligned],
    inputs: Mapping[str, np.ndarray],
    kernels: Sequence[str],
) -> list[LayerParity]:
    """Every tensor of the file that has a counterpart in Keras, computed from Keras's own values, on each kernel."""
    if not aligned:
        return []
    apart, fed, computed = take_apart(file, aligned)
    needed = list(dict.fromkeys(item.value for item in [*fed, *computed]))
    values = dict(zip(needed, reference.values(inputs, needed), strict=True))
    given = [*inputs.values(), *(_stored(item, item.expected(values)) for item in fed)]
    found = []
    for kernel in kernels:
        outputs = native.run(apart, given, kernel=kernel)
        found += [
            _compare(item, kernel, item.expected(values), output)
            for item, output in zip(computed, outputs, strict=True)
        ]
    return found


def _stored(item: Aligned, value: np.ndarray) -> np.ndarray:
    return pack_signs(value) if item.is_bitpacked else value.astype(np.float32)


def _compare(item: Aligned, kernel: str, expected: np.ndarray, output: np.ndarray) -> LayerParity:
    if not item.is_bitpacked:
        # A damaged file may yield infinity or NaN, which no tolerance covers.
        with np.errstate(invalid="ignore"):
            difference = float(np.abs(output.astype(np.float64) - expected).max() / (np.ptp(expected) or 1.0))
        return LayerParity(item.layer, kernel, expected.size, difference, 0, bool(difference <= TOLERANCE))
    differs = unpack_signs(output, expected.shape[-1]) != (expected < 0)
    matters = np.abs(expected) > FLIP_TOLERANCE * np.sqrt(np.mean(np.square(expected)))
    flips = int((differs & matters).sum())
    return LayerParity(item.layer, kernel, expected.size, 0.0, flips, not flips)
