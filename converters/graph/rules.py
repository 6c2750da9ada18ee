"""Rules: one function per layer class, which returns the operations of a layer at inference."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import larq as lq
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kbnn import activations
from kbnn.converters.graph.operations import Clip, ElementwiseFunction, Operation, PReLU, Shape
from kbnn.converters.graph.trace import Call, Reference

# The suffix of a name, an operation, and the shape of its value; None for the shape of the layer's output.
Step = tuple[str, "Operation | SumOfChains", Shape | None]


@dataclass(frozen=True)
class SumOfChains:
    """Several chains of steps that read the same value, and whose results are added."""

    chains: Sequence[Sequence[Step]]


@dataclass(frozen=True)
class Context:
    """What rules need to know about the model around a layer.

    `kernels` holds the binarized kernels and `numbers` the numbers of the calls of 1-bit layers, both by the `id` of a
    call; `holds_signs` tells whether a tensor holds only -1 and +1, and `is_sign` whether it is the direct result of a
    sign.
    """

    reference: Reference
    kernels: dict[int, np.ndarray]
    numbers: dict[int, int]
    holds_signs: Callable[[str], bool]
    is_sign: Callable[[str], bool]

    def kernel(self, call: Call) -> np.ndarray:
        return self.kernels[id(call)]

    def input_shape(self, call: Call) -> Shape:
        return self.reference.shape(call.inputs[0])


Rule = Callable[[Call, Context], list[Step] | None]
_RULES: dict[type, Rule] = {}
# Activation functions that clip, with their bounds.
_CLIPS = {
    tf.keras.activations.relu: (0.0, math.inf),
    tf.nn.relu: (0.0, math.inf),
    tf.nn.relu6: (0.0, 6.0),
    activations.hard_tanh: (-1.0, 1.0),
    lq.activations.hard_tanh: (-1.0, 1.0),
}
# Strictly increasing activation functions with f(0) = 0.
_KEEP_SIGNS = (
    tf.keras.activations.tanh,
    tf.keras.activations.softsign,
    tf.nn.tanh,
    tf.math.tanh,
    tf.nn.softsign,
)
# The default slope of `tf.nn.leaky_relu`.
_LEAKY_SLOPE = 0.2


def rule(*classes: type) -> Callable[[Rule], Rule]:
    """Registers a rule for layer classes, but not for their subclasses, which may compute something else."""

    def decorator(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, function))
        return function

    return decorator


def rule_for(layer: tf.keras.layers.Layer) -> Rule | None:
    return _RULES.get(type(layer))


def activation(layer: tf.keras.layers.Layer, channels: int) -> list[Step]:
    """The step of a layer's `activation` argument; none if it is linear."""
    if layer.activation in (None, tf.keras.activations.linear):
        return []
    return [("activation", function(layer.activation, channels), None)]


def function(called: Callable[[tf.Tensor], tf.Tensor], channels: int) -> Operation:
    """The operation that applies an elementwise function of one argument to a value with `channels` channels."""
    if called in _CLIPS:
        return Clip(*_CLIPS[called])
    if called is tf.nn.leaky_relu:
        return leaky(_LEAKY_SLOPE, channels)
    return ElementwiseFunction(called, keeps_signs=called in _KEEP_SIGNS)


def clips(low: float, high: float) -> list[tuple[float, float]]:
    """The bounds of the operations that clip between two bounds: one that is fused, or two of which one may be."""
    if (low, high) in _CLIPS.values() or math.inf in (-low, high):
        return [(low, high)]
    return [(low, math.inf), (-math.inf, high)]


def is_known(called: Callable[[tf.Tensor], tf.Tensor] | None) -> bool:
    """Whether an elementwise function has an operation that passes can rewrite."""
    return called in _CLIPS or called in _KEEP_SIGNS or called is tf.nn.leaky_relu


def leaky(slope: float, channels: int) -> PReLU:
    """A leaky ReLU, which has one slope for all channels."""
    return PReLU(np.full(channels, float(slope)), is_leaky=True)


def numbers(variable: npt.ArrayLike) -> np.ndarray:
    """The values of a variable in float64."""
    return np.asarray(variable, np.float64)
