"""Functions of one int8 tensor as tables: float operators between DEQUANTIZE and QUANTIZE, and activations."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Array, Field, Step, Struct, Tensor
from kbnn.converters.c.writers.binary import write_sums
from kbnn.converters.c.writers.lowering import Derived, Function, Lowering, Normalizing, writes
from kbnn.converters.c.writers.normalization import normalize
from kbnn.converters.c.writers.operators import (
    ACTIVATIONS,
    fused_activation,
    is_per_channel,
    levels_between,
    quantization,
    refused,
)
from kbnn.converters.c.writers.steps import ELEMENTWISE, function_step
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import Operator

# How many values TensorFlow Lite's vector code computes at once. It rounds those that fill no vector differently.
_FLOAT_VECTOR, INT8_VECTOR, BROADCAST_VECTOR = 8, 16, 8
# The ranges of the operators that do nothing but clip.
_RECTIFIERS = {"RELU": ACTIVATIONS[1], "RELU_N1_TO_1": ACTIVATIONS[2], "RELU6": ACTIVATIONS[3]}


@writes("DEQUANTIZE")
def _dequantize(lowering: Lowering, operator: Operator) -> None:
    source = lowering.tensor(operator)
    # The interpreter's vector code subtracts after the multiplication.
    scale = np.float32(source.scale)
    vectors = scale * integer.LEVELS.astype(np.float32) - scale * np.float32(source.zero_point)
    rest = scale * (integer.LEVELS - source.zero_point).astype(np.float32)
    tables = np.repeat(np.stack([vectors, rest])[..., None], source.channels, axis=2)
    lowering.values[operator.outputs[0].index] = Function(source, integer.LEVELS, tables, is_dequantized=True)


@writes("QUANTIZE")
def _quantize(lowering: Lowering, operator: Operator) -> None:
    value = lowering.of(operator, 0, Function, Normalizing, Derived, Tensor)
    if isinstance(value, Normalizing):
        normalize(lowering, operator, value)
        return
    output = lowering.output(operator)
    if isinstance(value, Function):
        rules = (integer.to_int8, integer.to_int8_alone)
        tables = [rule(table, *output.quantization) for rule, table in zip(rules, value.tables, strict=True)]
        _write_function(lowering, operator, value, np.stack(tables), output)
    else:
        _requantize(lowering, operator, value, output)


def _write_function(
    lowering: Lowering, operator: Operator, value: Function, tables: np.ndarray, output: Tensor
) -> None:
    if isinstance(value.source, Tensor):
        derive_in_vectors(lowering, operator, value.source, tables, output, _FLOAT_VECTOR)
        return
    count = output.height * output.row_bytes
    if count % _FLOAT_VECTOR and np.any(tables[0] != tables[1]):
        raise refused(
            operator, f"its {count} values are not a multiple of 8, and the last ones are rounded differently"
        )
    write_sums(lowering, value.source, tables[0], output)


def _requantize(lowering: Lowering, operator: Operator, value: Derived | Tensor, output: Tensor) -> None:
    """From int8 to other int8 levels."""
    before = value.tensor if isinstance(value, Derived) else value
    multiplier = integer.multiplier_of_scales((before.scale,), output.scale)
    x = integer.LEVELS - before.zero_point
    rules = (integer.rescaled_up, integer.rescaled)
    results = np.stack([integer.saturated(rule(x, *multiplier) + output.zero_point) for rule in rules])
    source, levels = before, integer.LEVELS[:, None]
    if isinstance(value, Derived):
        source, levels = value.source, value.table.astype(np.int64)
    derive_in_vectors(lowering, operator, source, results[:, levels - integer.LOW], output, INT8_VECTOR)


def derive_in_vectors(
    lowering: Lowering, operator: Operator, source: Tensor, tables: np.ndarray, output: Tensor, vector: int
) -> None:
    """Records that an output is a function of a tensor, in vectors and where values fill none: `(2, 256, C or 1)`."""
    in_vectors, alone = np.broadcast_to(tables, (*tables.shape[:2], source.channels))
    count = source.height * source.row_bytes
    first = count // vector * vector
    channels = np.arange(first, count) % source.channels
    rest = alone[:, channels]
    if not first:
        lowering.derive(operator, source, alone, output)
    elif np.all(rest == in_vectors[:, channels]):
        lowering.derive(operator, source, in_vectors, output)
    else:
        lowering.add(_with_rest(function_step(source, in_vectors, output), rest, first))


def _with_rest(step: Step, rest: np.ndarray, first: int) -> Step:
    """A step on all values, of which those from `first` on have their own results, `(256, rest)`."""
    fields: dict[str, Field] = {
        "kernel": step.kernel,
        "params": step.params,
        "rest": Array("int8_t", rest.T.ravel(), f"{step.output.name}/rest"),
        "in_vectors": first,
        "values": step.output.row_bytes,
    }
    params = Struct("kbnn_rest_params", fields, step.output.name)
    return dataclasses.replace(step, kernel="kbnn_with_rest", params=params)


def float_function(lowering: Lowering, operator: Operator, value: Function, constants: list[flatbuffer.Tensor]) -> None:
    """A float operator between DEQUANTIZE and QUANTIZE, computed for each level and channel."""
    given = [np.asarray(item.value(), np.float32).reshape(-1) for item in constants]
    order = [value.tables if item.data is None else given[0] for item in operator.inputs if item is not None]
    if not all(is_per_channel(item, value.tables.shape[-1]) for item in constants):
        raise refused(operator, "its constant is not one per channel")
    low, high = fused_activation(operator)
    results = _FLOAT_FUNCTIONS[operator.name](*order).astype(np.float32)
    tables = np.clip(results, np.float32(low), np.float32(high))
    lowering.values[operator.outputs[0].index] = Function(value.source, value.levels, tables)


def _elu(x: np.ndarray) -> np.ndarray:
    """Rounded from double precision, as the C library's expm1f is."""
    return np.where(x < 0, np.expm1(np.minimum(x, 0).astype(np.float64)), x)


_FLOAT_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "MUL": np.multiply,
    "ADD": np.add,
    "SUB": np.subtract,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "ELU": _elu,
    **{
        name: lambda x, bounds=bounds: np.clip(x, np.float32(bounds[0]), np.float32(bounds[1]))
        for name, bounds in _RECTIFIERS.items()
    },
}


@writes("ELU", "RELU", "RELU6", "RELU_N1_TO_1")
def _activation(lowering: Lowering, operator: Operator) -> None:
    value = lowering.of(operator, 0, Function, Tensor)
    if isinstance(value, Function):
        float_function(lowering, operator, value, [])
        return
    if operator.name not in _RECTIFIERS:
        raise refused(operator, "it is supported between float values only")
    output = lowering.output(operator)
    multiplier = integer.multiplier_of_scales((value.scale,), output.scale, np.float32)
    levels = integer.rescaled(integer.LEVELS - value.zero_point, *multiplier) + output.zero_point
    table = integer.saturated(levels, *levels_between(output, *_RECTIFIERS[operator.name]))
    lowering.derive(operator, value, table[:, None], output)


@writes("LOGISTIC", "TANH")
def _squash(lowering: Lowering, operator: Operator) -> None:
    """A sigmoid or tanh, which TensorFlow Lite computes in single precision once, for all levels."""
    held = lowering.values.get(operator.operands[0].index) if operator.operands else None
    if isinstance(held, Function):
        raise refused(operator, "its input is float, because a layer before it has no int8 form")
    source, output = lowering.tensor(operator), lowering.output(operator)
    x = np.float32(source.scale) * (integer.LEVELS - source.zero_point).astype(np.float32)
    # Rounded from double precision, as the C library's functions are.
    exact = np.exp(-x.astype(np.float64)) if operator.name == "LOGISTIC" else np.tanh(x.astype(np.float64))
    values = exact.astype(np.float32)
    if operator.name == "LOGISTIC":
        values = np.float32(1) / (np.float32(1) + values)
    levels = integer.rounded(values * (np.float32(1) / np.float32(output.scale))) + output.zero_point
    lowering.derive(operator, source, integer.saturated(levels)[:, None], output)


@writes("PRELU")
def _prelu(lowering: Lowering, operator: Operator) -> None:
    source, output = lowering.tensor(operator), lowering.output(operator)
    slopes = operator.inputs[1]
    if slopes is None or slopes.data is None or len(slopes.value().reshape(-1)) not in (1, source.channels):
        raise refused(operator, "its slopes are not one per channel")
    scale, zero_point = quantization(operator, slopes)
    slope = np.broadcast_to(slopes.value().reshape(-1).astype(np.int64) - zero_point, (source.channels,))
    x = (integer.LEVELS - source.zero_point)[:, None]
    positive = integer.multiplier_of_scales((source.scale,), output.scale, np.float32)
    negative = integer.multiplier_of_scales((source.scale, scale), output.scale, np.float32)
    results = np.where(x >= 0, integer.rescaled(x, *positive), integer.rescaled(x * slope, *negative))
    table = integer.saturated(results + output.zero_point)
    lowering.derive(operator, source, table, output, _prelu_step(source, output, slope, (positive, negative)))


def _prelu_step(
    source: Tensor, output: Tensor, slope: np.ndarray, multipliers: Sequence[tuple[int, int]]
) -> Step | None:
    """A PReLU in its own arithmetic, which takes a byte per channel."""
    (_, positive), (_, negative) = multipliers
    # Values are at most 255, slopes 127, and zero points are shifted by the right shifts.
    if np.any(slope != slope.astype(np.int8)) or not (-22 <= positive <= 20 and -22 <= negative <= -1):
        return None
    fields: dict[str, Field] = {
        "slopes": Array("int8_t", slope, f"{output.name}/slopes"),
        "multiplier": Array("", np.array([multiplier for multiplier, _ in multipliers]), ""),
        "width": source.width,
        "channels": source.channels,
        "exponent": Array("", np.array([shift for _, shift in multipliers]), ""),
        "zero": source.zero_point,
        "out_zero": output.zero_point,
    }
    params = Struct("kbnn_prelu_params", fields, output.name)
    return Step("kbnn_prelu", params, (source,), (ELEMENTWISE,), output)


@writes("LEAKY_RELU")
def _leaky_relu(lowering: Lowering, operator: Operator) -> None:
    source, output = lowering.tensor(operator), lowering.output(operator)
    x = (integer.LEVELS - source.zero_point)[:, None]
    positive = integer.multiplier_of_scales((source.scale,), output.scale, np.float32)
    negative = integer.multiplier_of_scales((source.scale, operator.options["alpha"]), output.scale, np.float32)
    results = np.where(x >= 0, integer.rescaled(x, *positive), integer.rescaled(x, *negative))
    lowering.derive(operator, source, integer.saturated(results + output.zero_point), output)
