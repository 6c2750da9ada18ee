"""Chooses the form of a network that a device runs with the fewest instructions; see docs/deployment.md."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import BinaryConvolution, Convolution, Dense, Operation
from kbnn.converters.passes.options import PLAIN, Options
from kbnn.converters.passes.thresholds import sign_reads
from kbnn.converters.tflite.audit import FEW_CHANNELS
from kbnn.converters.tflite.estimate import Load, instructions
from kbnn.converters.tflite.int8_weights import before_signs, small_stem
from kbnn.converters.tflite.lce import INDIRECT_LIMIT

# Smaller stems and convolutions keep their form: the gain would be within the error of the estimates, and integers
# round the image.
_STEM_MACS = 10_000_000
_MACS = 1_000_000
# Another form has to save this share of the instructions.
_GAIN = 0.02
# Instructions that a layer may lose for smaller weights, which is less than what the estimates are off by.
_LOSS = 50_000
# Device -> the devices whose estimates apply. Phones have dot products of integers, like a Pi 5.
ESTIMATED_LIKE = {
    "generic": ("pi4", "pi5"),
    "microcontroller": ("pi4", "pi5"),
    "pi4": ("pi4",),
    "pi5": ("pi5",),
    "android": ("pi5",),
}


def with_forms(options: Options, graph: Graph) -> Options:
    """The options with the names of the layers that take another form, for a graph before any pass."""
    is_plain, in_int8 = options.device in PLAIN, options.weights == "int8"
    found = [] if is_plain else [layer for layer in _large(graph) if layer.gains(options.device, in_int8)]
    if not in_int8:
        return replace(options, gathered=tuple(layer.name for layer in found if layer.is_stem))
    # After a convolution that rounds its input to 8 bits, weights of more than 8 bits do not help.
    hybrid = tuple(layer.name for layer in found)
    return replace(options, hybrid=hybrid) if hybrid else _with_precise_weights(options, graph)


def _with_precise_weights(options: Options, graph: Graph) -> Options:
    """The options with more than 8 bits for the weights that signs depend on: 16, or 32 where 16 would be slower.

    A dense layer that would be slower in 16 bits stays at 8, because in 32 bits it would be most of the file.
    """
    slower = {layer.name: layer for layer in _real_valued(graph) if layer.is_slower_in_16_bits(options.device)}
    stem, found = small_stem(graph), before_signs(graph)
    in_32_bits = tuple(
        name for name in found if name in stem or (name in slower and slower[name].operator == "CONV_2D")
    )
    in_16_bits = tuple(name for name in found if name not in in_32_bits and name not in slower)
    return replace(options, in_16_bits=in_16_bits, in_32_bits=in_32_bits)


def kernel_for(device: str, graph: Graph) -> str:
    """The form of grouped convolutions: Android's stock library has no kernel for them, others only for some of them.

    The graph is one before any pass.
    """
    if device in PLAIN:
        return "grouped"
    return "portable" if device == "android" or any(_falls_back(graph, node) for node in graph) else "grouped"


def _falls_back(graph: Graph, node: Node) -> bool:
    """Whether LCE has no optimized kernel for a grouped convolution, as when its output becomes bits."""
    operation = node.operation
    if not isinstance(operation, BinaryConvolution) or operation.groups == 1:
        return False
    is_large = math.prod(graph[node.inputs[0]].shape) / operation.groups >= INDIRECT_LIMIT
    return is_large or sign_reads(graph, node, _becomes_threshold)


def _becomes_threshold(operation: Operation) -> bool:
    """Whether the passes move a sign from after an operation to before it, as a threshold."""
    return operation.is_max_pool or operation.threshold_before(np.zeros(1)) is not None


@dataclass(frozen=True)
class _Layer:
    """A real-valued convolution or dense layer: its Keras layer, operator, groups, MACs, output values and weights."""

    name: str
    operator: str
    groups: int
    is_stem: bool
    macs: int
    values: int
    weights: int

    def gains(self, device: str, in_int8: bool) -> bool:
        """Whether a device runs it with fewer instructions as a hybrid convolution, or else with a gathered bias."""
        other = ("int8", "") if in_int8 else ("float32", "without XNNPACK")
        return all(
            self._instructions(name, *other) < (1 - _GAIN) * self._instructions(name, "float32", "")
            for name in ESTIMATED_LIKE[device]
        )

    def is_slower_in_16_bits(self, device: str) -> bool:
        """Whether a device runs it slower with int16 weights.

        A MUL applies their scales in each inference, and XNNPACK does not take a kernel that is computed.
        """
        scaling = Load("MUL", "float32", values=self.weights)
        return any(
            self._instructions(name, "float32", "without XNNPACK") + (instructions(scaling)[name] or 0.0)
            > self._instructions(name, "float32", "") + _LOSS
            for name in ESTIMATED_LIKE[device]
        )

    def _instructions(self, device: str, weights: str, case: str) -> float:
        """The estimate for a device of `estimate.DEVICES`."""
        cases = ", ".join(filter(None, ("few channels" if self.is_stem else "", case)))
        load = Load(self.operator, "float32", weights, cases, macs=self.macs, values=self.values)
        return instructions(load)[device] or 0.0


def _large(graph: Graph) -> list[_Layer]:
    """The real-valued convolutions, by layer, that are large enough for another form."""
    large: dict[str, _Layer] = {}
    for layer in _real_valued(graph):
        is_convolution = layer.operator == "CONV_2D" and layer.groups == 1
        if is_convolution and layer.macs >= (_STEM_MACS if layer.is_stem else _MACS):
            large.setdefault(layer.name, layer)
    return list(large.values())


def _real_valued(graph: Graph) -> Iterator[_Layer]:
    """The real-valued layers, once for each call."""
    for node in graph:
        operation = node.operation
        if isinstance(operation, Convolution | Dense):
            groups = operation.groups if isinstance(operation, Convolution) else 0
            weights = operation.kernel.size
            yield _Layer(
                node.layer,
                "CONV_2D" if groups else "FULLY_CONNECTED",
                groups,
                groups > 0 and groups * operation.kernel.shape[2] <= FEW_CHANNELS,
                math.prod(node.shape[:-1]) * weights,
                math.prod(node.shape),
                weights,
            )
