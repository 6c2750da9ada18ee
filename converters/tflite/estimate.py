"""Estimates how many instructions an operator takes on an ARM processor, from instruction counts.

`benchmarks/arm_costs.py` makes `arm_costs.csv` from the counts in `results/arm_costs.csv`: TensorFlow Lite 2.14 and
LCE's benchmark tool, with XNNPACK, one thread, under an emulator that counts instructions. They are not latencies:
an instruction that waits for memory takes longer than one that does not. Each row says which count it comes from.
"""

import csv
import functools
import importlib.resources
from dataclasses import dataclass

# Device -> display name.
DEVICES = {"pi4": "Pi 4 (Cortex-A72)", "pi5": "Pi 5 (Cortex-A76)"}


@dataclass(frozen=True)
class Load:
    """What an operator has to do in one inference.

    `input` and `weights` are types of values, "bits" for packed signs. `case` names the kernel: "few channels" for
    images, "without XNNPACK" where XNNPACK refuses a convolution, and "one scale" for int8 weights without scales per
    channel, in this order; of binary ones "indirect" or "portable C++" for groups. `macs` and `values` count
    multiply-accumulates and output values, or input values of reductions; `copies` the pixels that are copied before a
    binary convolution multiplies them (im2col).
    """

    operator: str
    input: str = ""
    weights: str = ""
    case: str = ""
    macs: int = 0
    values: int = 0
    copies: int = 0


def instructions(load: Load) -> dict[str, float | None]:
    """The estimated instructions of one operator by device; None for a type of operator that was not measured.

    cost = MACs * cost per MAC + values * cost per value + copied pixels * cost per copy + cost per call.
    """
    row = _row(load)
    if row is None:
        return dict.fromkeys(DEVICES)
    parts = {"mac": load.macs, "value": load.values, "copy": load.copies, "call": 1}
    return {
        device: sum(count * float(row[f"{device}_per_{part}"]) for part, count in parts.items()) for device in DEVICES
    }


def _row(load: Load) -> dict[str, str] | None:
    """The first row that matches; empty cells match anything."""
    for row in _rows().get(load.operator, ()):
        cells = ((row["input"], load.input), (row["weights"], load.weights), (row["when"], load.case))
        if all(cell in ("", received) for cell, received in cells):
            return row
    return None


@functools.cache
def _rows() -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    text = importlib.resources.files("kbnn.converters.tflite").joinpath("arm_costs.csv").read_text()
    for row in csv.DictReader(text.splitlines()):
        found.setdefault(row["operator"], []).append(row)
    return found
