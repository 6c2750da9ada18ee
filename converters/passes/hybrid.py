"""Passes for hybrid convolutions, with int8 weights and a float input that the runtime rounds to int8.

Without a DEQUANTIZE between int8 weights and a convolution, TensorFlow Lite uses its hybrid kernel, which rounds each
image to 256 levels between its minimum and maximum, multiplies integers, and scales the sums back to float. This needs
no calibration. A 7x7x3 stem at 224x224 takes 48 M instructions on a Cortex-A72 instead of 72 M, and 23 M with the dot
products of a Cortex-A76 (results/arm_costs.csv). `in_hybrid` changes the graph that the file is compared with, and
`stored_hybrid` changes the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.graph import Graph
from kbnn.converters.graph.operations import Convolution
from kbnn.converters.graph.rounding import scales_per_channel
from kbnn.converters.tflite import audit
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.surgery import Surgery

# The first version of CONV_2D whose hybrid kernel has a scale per channel.
_VERSION = 5
# The range of normalized images, in standard deviations.
_IMAGE_RANGE = 6.0


@dataclass(frozen=True, eq=False)
class HybridConvolution(Convolution):
    """A convolution of an image that is rounded to 256 levels between its minimum and maximum, including zero."""

    @property
    def rounding_step(self) -> float:
        """The step between two levels of an image, times the largest weight."""
        return _IMAGE_RANGE / 255 * float(np.abs(self.kernel).max())

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, len(x.shape)))
        low = tf.minimum(tf.reduce_min(x, axes, keepdims=True), 0.0)
        high = tf.maximum(tf.reduce_max(x, axes, keepdims=True), 0.0)
        scale = tf.maximum((high - low) / 255.0, 1e-30)
        zero = tf.clip_by_value(tf.round(-128.0 - low / scale), -128.0, 127.0)
        levels = tf.clip_by_value(tf.round(x * (1.0 / scale)) + zero, -128.0, 127.0)
        return super().__call__((levels - zero) * scale)


def in_hybrid(graph: Graph, layers: Sequence[str]) -> Graph:
    """The graph, with the convolutions of some layers computed as by a hybrid kernel."""
    found = [node for node in graph if node.layer in layers and isinstance(node.operation, Convolution)]
    changed = [replace(node, operation=HybridConvolution(**vars(node.operation))) for node in found]
    return graph.with_nodes(*changed)


def stored_hybrid(file: File, layers: Sequence[str]) -> File:
    """The file, with int8 weights and without a DEQUANTIZE for the convolutions of some layers."""
    surgery = Surgery(file)
    for operator in file.operators:
        if operator.name == "CONV_2D" and audit.layer_name(file, operator) in layers:
            weights = audit.weights(file, operator)
            values = weights.value()
            scales = scales_per_channel(values, 0)
            integers = np.round(values / scales).astype(np.int8)
            stored = surgery.constant(weights.name, integers, scales)
            surgery.computed(weights, f"{weights.name}/float")
            surgery.redirect(operator.index, 1, stored, _VERSION)
    return surgery.file()
