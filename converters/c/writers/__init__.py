"""Translates the operators of a bitpacked int8 .tflite file into steps of the C kernels: one writer per operator.

C code that is equal to the file bit for bit must start from the file's integers: LCE's converter chooses the scale,
zero point, multiplier and threshold of each value when `lower` writes the file, whereas kbnn's own graph has real
values and their ranges. Runs and models are therefore converted to a file first. An operator without a writer is
refused by name.

A writer is one function, decorated with `@writes("OPERATOR")`. Each module imports only those above it:

- `operators`: names, shapes, scales, ranges and geometry of an operator, and the error that refuses it.
- `steps`: the steps that several writers add.
- `lowering`: the steps so far, what each tensor of the file is, and the writers by operator.
- `binary`: signs and binary convolutions. `convolutions`: int8 convolutions and dense layers. `moves`: operators that
  only move values. `normalization`: layer normalizations and softmax.
- `pooling`: pooling and means. `functions`: functions of one tensor as tables.
- `elementwise`: operators of two tensors, or of a tensor and a constant.
- `network`: a whole file.
"""

# Importing these modules registers their writers.
from kbnn.converters.c.writers import (
    binary,
    convolutions,
    elementwise,
    functions,
    moves,
    normalization,
    pooling,
)
from kbnn.converters.c.writers.network import Network, write

__all__ = [
    "Network",
    "binary",
    "convolutions",
    "elementwise",
    "functions",
    "moves",
    "normalization",
    "pooling",
    "write",
]
