"""Passes for hybrid convolutions, with int8 weights and a float input that the runtime rounds to int8.

Without a DEQUANTIZE between int8 weights and a convolution, TensorFlow Lite uses its hybrid kernel, which rounds each
image to 256 levels between its minimum and maximum, multiplies integers, and scales the sums back to float. This needs
no calibration. A 7x7x3 stem at 224x224 takes 48 M instructions on a Cortex-A72 instead of 72 M, and 23 M with the dot
products of a Cortex-A76 (results/arm_costs.csv).

If all filters have the same scale, a cheaper kernel scales all sums alike, and rounds the image to 255 levels around
zero: 46 M instead of 48 M. `scales_after_pools` gives the filters of a stem the same largest weight, and multiplies the
four times fewer values after max pooling instead. `in_hybrid` changes the graph that the file is compared with, and
`stored_hybrid` changes the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, Convolution
from kbnn.converters.graph.rounding import scales_per_channel
from kbnn.converters.tflite import operators
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.int8_weights import kernel_layer
from kbnn.converters.tflite.surgery import Surgery

# The first versions of CONV_2D with a hybrid kernel, and with one that has a scale per channel.
_ONE_SCALE, _PER_CHANNEL = 2, 5
# The range of normalized images, in standard deviations.
_IMAGE_RANGE = 6.0


@dataclass(frozen=True, eq=False)
class HybridConvolution(Convolution):
    """A convolution of an image that is rounded to 8 bits.

    With one scale for all filters, the levels are -127 to 127 times the largest magnitude / 127; with a scale per
    filter, 256 levels between minimum and maximum, including zero.
    """

    @property
    def rounding_step(self) -> float:
        """The step between two levels of an image, times the largest weight."""
        return _IMAGE_RANGE / 255 * float(np.abs(self.kernel).max())

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, len(x.shape)))
        if have_one_scale(scales_per_channel(self.kernel, -1)):
            step = tf.maximum(tf.reduce_max(tf.abs(x), axes, keepdims=True), 1e-30) / 127.0
            return super().__call__(tf.clip_by_value(tf.round(x * (1.0 / step)), -127.0, 127.0) * step)
        low = tf.minimum(tf.reduce_min(x, axes, keepdims=True), 0.0)
        high = tf.maximum(tf.reduce_max(x, axes, keepdims=True), 0.0)
        scale = tf.maximum((high - low) / 255.0, 1e-30)
        zero = tf.clip_by_value(tf.round(-128.0 - low / scale), -128.0, 127.0)
        levels = tf.clip_by_value(tf.round(x * (1.0 / scale)) + zero, -128.0, 127.0)
        return super().__call__((levels - zero) * scale)


def have_one_scale(scales: np.ndarray) -> bool:
    """Whether scales per filter differ by no more than rounding."""
    return bool(np.allclose(scales, scales.flat[0], rtol=1e-5, atol=0))


def scales_after_pools(graph: Graph, layers: Sequence[str]) -> Graph:
    """Moves the filters' scales behind max pooling, where only that reads the convolution of one of the layers.

    max(s·x) = s·max(x) for s > 0.
    """
    for node in list(graph):
        pool = graph.sole_consumer(node.name)
        if pool is None or not pool.operation.is_max_pool:
            continue
        if node.layer in layers and isinstance(node.operation, Convolution) and not graph.is_output(pool.name):
            graph = _scaled_after(graph, node, node.operation, pool)
    return graph


def _scaled_after(graph: Graph, node: Node, convolution: Convolution, pool: Node) -> Graph:
    largest = np.abs(convolution.kernel).max((0, 1, 2))
    if not largest.all():
        return graph
    divided = replace(convolution, kernel=convolution.kernel / largest, bias=convolution.bias / largest)
    pooled = replace(pool, name=graph.unused(f"{pool.name}/unscaled"), origin=None)
    scaled = replace(pool, operation=Affine(largest, np.zeros(len(largest))), inputs=(pooled.name,))
    return graph.with_nodes(replace(node, operation=divided, origin=None), pooled, scaled)


def in_hybrid(graph: Graph, layers: Sequence[str]) -> Graph:
    """The graph, with the convolutions of some layers computed as by a hybrid kernel."""
    found = [node for node in graph if node.layer in layers and isinstance(node.operation, Convolution)]
    changed = [replace(node, operation=HybridConvolution(**vars(node.operation))) for node in found]
    return graph.with_nodes(*changed)


def stored_hybrid(file: File, layers: Sequence[str]) -> File:
    """The file, with int8 weights and without a DEQUANTIZE for the convolutions of some layers."""
    surgery = Surgery(file)
    for operator in file.operators:
        if operator.name == "CONV_2D" and kernel_layer(operator) in layers:
            weights = operators.weights(file, operator)
            values = weights.value()
            scales = scales_per_channel(values, 0)
            integers = np.round(values / scales).astype(np.int8)
            is_one = have_one_scale(scales)
            stored = surgery.constant(weights.name, integers, scales.ravel()[:1] if is_one else scales)
            surgery.computed(weights, f"{weights.name}/float")
            surgery.redirect(operator.index, 1, stored, _ONE_SCALE if is_one else _PER_CHANNEL)
    return surgery.file()
