"""A pass over the file that reads the stem's bias through a GATHER, so that ruy computes the stem instead of XNNPACK.

XNNPACK takes over a convolution only if its bias is a constant. Its kernel for a 7x7x3 stem at 224x224 needs 72 M
instructions on a Cortex-A72; TensorFlow Lite's own kernel, based on ruy, needs 49 to 57 M (results/arm_costs.csv).
Gathering elements 0 to n - 1 of the bias changes no value and costs almost nothing.
"""

from collections.abc import Sequence

import numpy as np

from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.int8_weights import kernel_layer
from kbnn.converters.tflite.surgery import Surgery


def gathered_bias(file: File, layers: Sequence[str]) -> File:
    """The file, with a GATHER before the biases of the float convolutions in some layers."""
    surgery = Surgery(file)
    for operator in file.operators:
        if operator.name != "CONV_2D" or kernel_layer(operator) not in layers:
            continue
        weights, bias = operator.inputs[1], operator.inputs[2]
        # XNNPACK also leaves convolutions alone whose kernel is computed.
        if bias is not None and bias.data is not None and weights is not None and weights.dtype == "float32":
            order = surgery.constant(f"{bias.name}/order", np.arange(bias.shape[0], dtype=np.int32))
            gathered = surgery.value(f"{bias.name}/gathered", bias.shape)
            surgery.add("GATHER", 1, [bias.index, order], gathered, "GatherOptions", axis=0)
            surgery.redirect(operator.index, 2, gathered)
    return surgery.file()
