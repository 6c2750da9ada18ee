"""Rules of TensorFlow functions and operators in functional models, which Keras wraps in layers."""

import operator
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

from kbnn.converters.graph import operations as op
from kbnn.converters.graph.rules import Context, Step, function, is_known, leaky, rule
from kbnn.converters.graph.trace import Call, Traced

_Function = Callable[[tf.Tensor], tf.Tensor]
_Arithmetic = Callable[[Sequence[object], int], op.Operation | None]


@rule(TFOpLambda)
def _function(call: Call, context: Context) -> list[Step] | None:
    """`tf.nn.relu(x)`, `x + y`, `0.1 * x`, `1.0 - x`."""
    (args, kwargs), shapes = call.arguments, {context.reference.shape(tensor) for tensor in call.inputs}
    shape = context.reference.shape(call.outputs[0])
    if shapes != {shape} or not shape:
        return None
    given = [*args, *(value for name, value in kwargs.items() if name != "name")]
    found = _operation(call.layer, given, len(call.inputs), shape[-1])
    return None if found is None else [("function", found, None)]


@rule(tf.keras.layers.Lambda)
def _lambda(call: Call, context: Context) -> list[Step] | None:
    """`Lambda(tf.nn.relu)`."""
    called, shape = call.layer.function, context.reference.shape(call.outputs[0])
    return [("function", function(called, shape[-1]), None)] if is_known(called) and shape else None


def _operation(layer: TFOpLambda, given: Sequence[object], inputs: int, channels: int) -> op.Operation | None:
    called = _public(layer.symbol)
    if called is tf.nn.leaky_relu and len(given) == 2:
        slope = _constant(given[1], 1)
        return None if slope is None else leaky(slope.item(), channels)
    if called is not None and is_known(called) and len(given) == 1:
        return function(called, channels)
    arithmetic = _ARITHMETIC.get(layer.symbol)
    return arithmetic(given, channels) if arithmetic is not None and len(given) == 2 and inputs in (1, 2) else None


def _public(symbol: str | None) -> _Function | None:
    """The public function with a name, such as `tf.nn.relu` for "nn.relu"; the layer holds an internal one."""
    try:
        return operator.attrgetter(symbol or "")(tf)
    except AttributeError:
        return None


def _sum(given: Sequence[object], channels: int) -> op.Operation | None:
    return _with_constants(given, channels, op.Add(), op.Affine.shift)


def _difference(given: Sequence[object], channels: int) -> op.Operation | None:
    """x - c, or c - x."""
    sign, ones = 1.0 if _is_computed(given[0]) else -1.0, np.ones(channels)
    return _with_constants(given, channels, op.Subtract(), lambda constant: op.Affine(sign * ones, -sign * constant))


def _product(given: Sequence[object], channels: int) -> op.Operation | None:
    return _with_constants(given, channels, None, lambda constant: op.Affine(constant, np.zeros(channels)))


_ARITHMETIC: dict[str, _Arithmetic] = {
    "__operators__.add": _sum,
    "math.add": _sum,
    "math.subtract": _difference,
    "math.multiply": _product,
}


def _with_constants(
    given: Sequence[object],
    channels: int,
    of_two: op.Operation | None,
    of_one: Callable[[np.ndarray], op.Operation],
) -> op.Operation | None:
    """The operation on two computed values, or on one value and a constant per channel."""
    if all(_is_computed(value) for value in given):
        return of_two
    constants = [_constant(value, channels) for value in given if not _is_computed(value)]
    return of_one(constants[0]) if len(constants) == 1 and constants[0] is not None else None


def _is_computed(value: object) -> bool:
    return isinstance(value, Traced)


def _constant(value: object, channels: int) -> np.ndarray | None:
    """A constant as one number per channel; None for a computed value, and for one that varies over the image."""
    if _is_computed(value):
        return None
    numbers = np.asarray(value, np.float64)
    if numbers.size == 1:
        return np.full(channels, numbers.item())
    return numbers.ravel() if numbers.shape[-1] == numbers.size == channels else None
