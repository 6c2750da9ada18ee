"""Which operations each layer is at inference: one rule per layer class."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from kbnn import activations
from kbnn.converters.graph.operations import Clip, ElementwiseFunction, Operation, PReLU, Shape
from kbnn.converters.graph.trace import Call, Reference

# A suffix for the name, the operation, and the shape of its value where it differs from that of the layer's output.
Step = tuple[str, "Operation | SumOfChains", Shape | None]


@dataclass(frozen=True)
class SumOfChains:
    """Chains of steps that read the same value; what they return is added."""

    chains: Sequence[Sequence[Step]]


@dataclass(frozen=True)
class Context:
    """What rules need besides the layer: Keras's binarized kernels, the numbers of the uses of 1-bit layers, and which
    tensors hold signs already.
    """

    reference: Reference
    kernels: dict[int, np.ndarray]
    numbers: dict[int, int]
    holds_signs: Callable[[str], bool]

    def kernel(self, call: Call) -> np.ndarray:
        return self.kernels[id(call)]

    def input_shape(self, call: Call) -> Shape:
        return self.reference.shape(call.inputs[0])

    def input_dtype(self, call: Call) -> tf.DType:
        return self.reference.tensor(call.inputs[0]).dtype


Rule = Callable[[Call, Context], list[Step] | None]
_RULES: dict[type, Rule] = {}
# Activation functions that clip, and their bounds.
_CLIPS = {
    tf.keras.activations.relu: (0.0, math.inf),
    tf.nn.relu: (0.0, math.inf),
    tf.nn.relu6: (0.0, 6.0),
    activations.hard_tanh: (-1.0, 1.0),
    lq.activations.hard_tanh: (-1.0, 1.0),
}
_KEEP_SIGNS = (
    tf.keras.activations.tanh,
    tf.keras.activations.softsign,
    tf.nn.tanh,
    tf.math.tanh,
    tf.nn.softsign,
)
# TensorFlow's and Keras's default slope.
_LEAKY_SLOPE = 0.2


def rule(*classes: type) -> Callable[[Rule], Rule]:
    """Registers a rule for layer classes. Their subclasses may compute something else and stay as they are."""

    def decorator(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, function))
        return function

    return decorator


def rule_for(layer: Any) -> Rule | None:
    return _RULES.get(type(layer))


def activation(layer: Any, channels: int) -> list[Step]:
    """A layer's own activation function; nothing when it is linear."""
    if layer.activation in (None, tf.keras.activations.linear):
        return []
    return [("activation", function(layer.activation, channels), None)]


def function(called: Callable[[tf.Tensor], tf.Tensor], channels: int) -> Operation:
    """An elementwise function of one argument as an operation of a value of `channels` channels."""
    if called in _CLIPS:
        return Clip(*_CLIPS[called])
    if called is tf.nn.leaky_relu:
        return leaky(_LEAKY_SLOPE, channels)
    return ElementwiseFunction(called, keeps_signs=called in _KEEP_SIGNS)


def is_known(called: Callable[[tf.Tensor], tf.Tensor] | None) -> bool:
    """Whether an elementwise function has an operation that passes can use."""
    return called in _CLIPS or called in _KEEP_SIGNS or called is tf.nn.leaky_relu


def leaky(slope: float, channels: int) -> PReLU:
    """A leaky ReLU: one slope for all channels."""
    return PReLU(np.full(channels, float(slope)), is_leaky=True)


def numbers(variable: Any) -> np.ndarray:
    """A variable's values in float64."""
    return np.asarray(variable, np.float64)
