"""Chooses the form of a network that a device runs with the fewest instructions; see docs/deployment.md."""

import math
from dataclasses import replace

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import BinaryConvolution, Convolution
from kbnn.converters.passes.options import Options
from kbnn.converters.tflite.int8_weights import before_signs, small_stem
from kbnn.converters.tflite.lce import INDIRECT_LIMIT

# A stem has at most this many input channels, and at least this many MACs: smaller ones gain from no form.
_STEM_CHANNELS = 4
_STEM_MACS = 10_000_000
# Smaller convolutions do not gain from integers, because their input has to be rounded first.
_HYBRID_MACS = 1_000_000
# Processors with 8-bit dot products compute all convolutions faster in integers, others only the stem and convolutions
# on small maps: 256 to 512 channels at 7x7 take 2.1 M instructions instead of 2.3 M, 128 to 256 at 14x14 2.3 M instead
# of 2.2 M (results/arm_costs.csv).
_WITH_DOT_PRODUCTS = ("pi5", "android")
_SMALL_MAP = 49


def with_forms(options: Options, graph: Graph) -> Options:
    """The options with the names of the layers that take another form, for a graph before any pass."""
    stems = _layers(graph, _STEM_MACS, _STEM_CHANNELS)
    if options.weights != "int8":
        return replace(options, gathered=() if options.device == "generic" else stems)
    if options.device == "generic":
        return _with_precise_weights(options, graph)
    every = _layers(graph, _HYBRID_MACS, math.inf)
    small = _layers(graph, _HYBRID_MACS, math.inf, _SMALL_MAP) if stems else ()
    hybrid = every if options.device in _WITH_DOT_PRODUCTS else (*stems, *small)
    # After a stem that rounds the image to 8 bits, weights of more than 8 bits do not help.
    return replace(options, hybrid=hybrid) if hybrid else _with_precise_weights(options, graph)


def _with_precise_weights(options: Options, graph: Graph) -> Options:
    """The options with more than 8 bits for the weights that signs depend on."""
    stem = small_stem(graph)
    others = tuple(layer for layer in before_signs(graph) if layer not in stem)
    return replace(options, in_16_bits=others, in_32_bits=stem)


def kernel_for(device: str, graph: Graph) -> str:
    """The form of grouped convolutions: Android's stock library has no kernel for them, others only for small ones."""
    if device == "generic":
        return "grouped"
    return "portable" if device == "android" or any(_falls_back(graph, node) for node in graph) else "grouped"


def _falls_back(graph: Graph, node: Node) -> bool:
    """Whether LCE has no optimized kernel for a grouped convolution."""
    operation = node.operation
    if not isinstance(operation, BinaryConvolution) or operation.groups == 1:
        return False
    return math.prod(graph[node.inputs[0]].shape) / operation.groups >= INDIRECT_LIMIT


def _layers(graph: Graph, macs: int, channels: float, pixels: float = math.inf) -> tuple[str, ...]:
    """The layers of real-valued convolutions with at least `macs` MACs, at most `channels` inputs and `pixels` out."""
    found = []
    for node in graph:
        convolution = node.operation
        if isinstance(convolution, Convolution) and convolution.groups == 1 and convolution.kernel.shape[2] <= channels:
            places = math.prod(node.shape[:-1])
            wanted = places * convolution.kernel.size >= macs and places <= pixels
            found += [node.layer] if wanted else []
    return tuple(dict.fromkeys(found))
