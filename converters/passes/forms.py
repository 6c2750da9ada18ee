"""Chooses the form of a network that a device runs with the fewest instructions; see docs/deployment.md."""

import math
from dataclasses import dataclass, replace

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import BinaryConvolution, Convolution
from kbnn.converters.passes.options import PLAIN, Options
from kbnn.converters.tflite.audit import FEW_CHANNELS
from kbnn.converters.tflite.estimate import Load, instructions
from kbnn.converters.tflite.int8_weights import before_signs, small_stem
from kbnn.converters.tflite.lce import INDIRECT_LIMIT

# Smaller stems and convolutions keep their form: what they could gain is less than what the estimates are off by, and
# integers round the image.
_STEM_MACS = 10_000_000
_MACS = 1_000_000
# Another form has to save this share of the instructions.
_GAIN = 0.02
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
    """The options with more than 8 bits for the weights that signs depend on: 16, or 32 where 16 would be slower."""
    kept = {*small_stem(graph), *(layer.name for layer in _large(graph) if layer.is_slower_in_16_bits(options.device))}
    found = before_signs(graph)
    in_16_bits = tuple(layer for layer in found if layer not in kept)
    return replace(options, in_16_bits=in_16_bits, in_32_bits=tuple(layer for layer in found if layer in kept))


def kernel_for(device: str, graph: Graph) -> str:
    """The form of grouped convolutions: Android's stock library has no kernel for them, others only for small ones."""
    if device in PLAIN:
        return "grouped"
    return "portable" if device == "android" or any(_falls_back(graph, node) for node in graph) else "grouped"


def _falls_back(graph: Graph, node: Node) -> bool:
    """Whether LCE has no optimized kernel for a grouped convolution."""
    operation = node.operation
    if not isinstance(operation, BinaryConvolution) or operation.groups == 1:
        return False
    return math.prod(graph[node.inputs[0]].shape) / operation.groups >= INDIRECT_LIMIT


@dataclass(frozen=True)
class _Layer:
    """A real-valued convolution: its Keras layer, MACs and output values."""

    name: str
    is_stem: bool
    macs: int
    values: int

    def gains(self, device: str, in_int8: bool) -> bool:
        """Whether a device runs it with fewer instructions as a hybrid convolution, or else with a gathered bias."""
        usual = self._instructions(device, "float32", "")
        other = self._instructions(device, "int8" if in_int8 else "float32", "" if in_int8 else "without XNNPACK")
        return other < (1 - _GAIN) * usual

    def is_slower_in_16_bits(self, device: str) -> bool:
        """Whether a device runs it slower with int16 weights, whose scales XNNPACK does not fold into the kernel."""
        usual = self._instructions(device, "float32", "")
        return self._instructions(device, "float32", "without XNNPACK") > usual

    def _instructions(self, device: str, weights: str, case: str) -> float:
        cases = ", ".join(filter(None, ("few channels" if self.is_stem else "", case)))
        load = Load("CONV_2D", "float32", weights, cases, macs=self.macs, values=self.values)
        return sum(instructions(load)[name] or 0.0 for name in ESTIMATED_LIKE[device])


def _large(graph: Graph) -> list[_Layer]:
    """The real-valued convolutions, by layer, that are large enough for another form."""
    found: dict[str, _Layer] = {}
    for node in graph:
        convolution = node.operation
        if isinstance(convolution, Convolution) and convolution.groups == 1:
            is_stem = convolution.kernel.shape[2] <= FEW_CHANNELS
            macs = math.prod(node.shape[:-1]) * convolution.kernel.size
            if macs >= (_STEM_MACS if is_stem else _MACS):
                found.setdefault(node.layer, _Layer(node.layer, is_stem, macs, math.prod(node.shape)))
    return list(found.values())
