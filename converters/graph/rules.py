"""Which operations each layer is at inference: one rule per layer class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from kbnn import activations
from kbnn.converters.graph.operations import Function, Operation, Shape
from kbnn.converters.graph.trace import Call, Reference

# A suffix for the name, the operation, and the shape of its value where that is not the layer's output's.
Step = tuple[str, Operation, Shape | None]


@dataclass(frozen=True)
class Context:
    """What rules need beside the layer: Keras's binarized kernels, and the numbers of the uses of 1-bit layers."""

    reference: Reference
    kernels: dict[int, np.ndarray]
    numbers: dict[int, int]

    def kernel(self, call: Call) -> np.ndarray:
        return self.kernels[id(call)]

    def input_shape(self, call: Call) -> Shape:
        return self.reference.shape(call.inputs[0])


Rule = Callable[[Call, Context], list[Step] | None]
_RULES: dict[type, Rule] = {}
# Functions whose training form holds more than elementwise operations, and the same function as one.
_INFERENCE_FORMS = {activations.hard_tanh: lq.activations.hard_tanh}


def rule(*classes: type) -> Callable[[Rule], Rule]:
    """Registers a rule for layer classes. Their subclasses may compute something else and stay as they are."""

    def decorator(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, function))
        return function

    return decorator


def rule_for(layer: Any) -> Rule | None:
    return _RULES.get(type(layer))


def activation(layer: Any) -> list[Step]:
    """A layer's own activation function; nothing when it is linear."""
    is_linear = layer.activation in (None, tf.keras.activations.linear)
    function = _INFERENCE_FORMS.get(layer.activation, layer.activation)
    return [] if is_linear else [("activation", Function(function), None)]


def numbers(variable: Any) -> np.ndarray:
    """A variable's values in float64."""
    return np.asarray(variable, np.float64)
