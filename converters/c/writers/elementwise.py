"""Sums, products, maxima and minima, of two tensors or of a tensor and a constant."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Array, Field, Step, Struct, Tensor, Window
from kbnn.converters.c.writers.functions import BROADCAST_VECTOR, INT8_VECTOR, derive_in_vectors, float_function
from kbnn.converters.c.writers.lowering import Derived, Function, Lowering, Normalizing, writes
from kbnn.converters.c.writers.normalization import next_stage
from kbnn.converters.c.writers.operators import (
    clipping_of,
    is_per_channel,
    quantization,
    refused,
)
from kbnn.converters.c.writers.steps import ELEMENTWISE, function_step
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import Operator

# Multiplier and shift of both terms of a sum, and of the sum.
_Multipliers = Sequence[tuple[int, int]]


@writes("MUL", "ADD", "SUB", "MAXIMUM", "MINIMUM")
def _elementwise(lowering: Lowering, operator: Operator) -> None:
    constants = [item for item in operator.inputs if item is not None and item.data is not None]
    held = [lowering.values.get(item.index) for item in operator.operands]
    if operator.outputs[0].dtype == "float32" and (len(held) == 2 or isinstance(held[0], Normalizing)):
        lowering.values[operator.outputs[0].index] = next_stage(operator, held, constants)
    elif len(operator.operands) == 1:
        value = lowering.of(operator, operator.inputs.index(operator.operands[0]), Function, Tensor)
        if isinstance(value, Function):
            float_function(lowering, operator, value, constants)
        else:
            _with_constant(lowering, operator, value, constants)
    elif operator.name in ("ADD", "SUB"):
        _sum(lowering, operator)
    elif operator.name == "MUL":
        _multiply(lowering, operator)
    else:
        _extreme(lowering, operator)


def _with_constant(lowering: Lowering, operator: Operator, value: Tensor, constants: list[flatbuffer.Tensor]) -> None:
    """An int8 tensor and a constant per channel."""
    output = lowering.output(operator)
    if operator.name not in ("ADD", "MUL", "MAXIMUM", "MINIMUM") or len(constants) != 1 or constants[0].dtype != "int8":
        raise refused(operator, "it is supported for two computed values, or for one and a constant per channel")
    if not is_per_channel(constants[0], value.channels):
        raise refused(operator, "its constant is not one per channel")
    constant = constants[0].value().reshape(-1).astype(np.int64)
    scale, zero_point = quantization(operator, constants[0])
    if operator.name in _EXTREMES:
        if any(pair != output.quantization for pair in ((scale, zero_point), value.quantization)):
            raise refused(operator, "its two values have different scales")
        table = _EXTREMES[operator.name](integer.LEVELS[:, None], constant)
        lowering.derive(operator, value, table.astype(np.int8), output)
        return
    x = integer.LEVELS[:, None] - value.zero_point
    if operator.name == "ADD":
        results = _added_constant(
            value, x, constant - zero_point, _sum_multipliers(operator, value.scale, scale, output.scale)
        )
    else:
        multiplier = integer.multiplier_of_scales((value.scale, scale), output.scale, np.float32)
        results = np.stack([integer.rescaled(x * (constant - zero_point), *multiplier)] * 2)
    tables = integer.saturated(results + output.zero_point, *clipping_of(operator, output))
    derive_in_vectors(lowering, operator, value, tables, output, BROADCAST_VECTOR)


def _added_constant(value: Tensor, x: np.ndarray, constant: np.ndarray, multipliers: _Multipliers) -> np.ndarray:
    """The sums for each level and channel, `(2, levels, C)`: in vectors, and where values fill none."""
    alone = _added(x, constant, multipliers, integer.term_alone)
    if len(constant) == 1:
        return np.stack([_added(x, constant, multipliers, integer.term_of_broadcast), alone])
    # Each pixel's channels go into vectors of their own.
    vectors = _added(x, constant, multipliers, integer.term_in_vector)
    in_vectors = np.arange(value.channels) < value.channels // INT8_VECTOR * INT8_VECTOR
    return np.stack([np.where(in_vectors, vectors, alone)] * 2)


_EXTREMES: dict[str, Callable[..., np.ndarray]] = {"MAXIMUM": np.maximum, "MINIMUM": np.minimum}


def _extreme(lowering: Lowering, operator: Operator) -> None:
    """The larger or smaller of two values; two functions of one tensor, as in max(x, slope·x), are a function of it."""
    values = [lowering.of(operator, k, Tensor, Derived) for k in (0, 1)]
    sources = [value.source if isinstance(value, Derived) else value for value in values]
    held = [value.tensor if isinstance(value, Derived) else value for value in values]
    output = lowering.output(operator)
    if any(tensor.quantization != output.quantization for tensor in held):
        raise refused(operator, "its two values have different scales")
    if sources[0] is sources[1]:
        levels = integer.LEVELS[:, None].astype(np.int8)
        tables = [value.table if isinstance(value, Derived) else levels for value in values]
        lowering.derive(operator, sources[0], _EXTREMES[operator.name](*tables), output)
        return
    a, b = lowering.tensor(operator, 0), lowering.tensor(operator, 1)
    if not a.shape == b.shape == output.shape:
        raise refused(operator, "its two values have different shapes")
    params = Struct("kbnn_extreme_params", {"values": output.row_bytes}, output.name)
    kernel = f"kbnn_{operator.name.lower()}"
    lowering.add(Step(kernel, params, (a, b), (ELEMENTWISE, ELEMENTWISE), output))


def _multiply(lowering: Lowering, operator: Operator) -> None:
    """The product of two computed values, one of which may have a single row, column or channel."""
    values, output = [lowering.tensor(operator, k) for k in (0, 1)], lowering.output(operator)
    shape = output.shape
    a, b = values if values[0].shape == shape else reversed(values)
    if a.shape != shape or any(mine not in (1, size) for mine, size in zip(b.shape, shape, strict=True)):
        raise refused(operator, "its two values have shapes of which neither is that of the product")
    multiplier, shift = integer.multiplier_of_scales((values[0].scale, values[1].scale), output.scale, np.float32)
    if 255 * 255 << max(shift, 0) >= 2**31:
        raise refused(operator, "its products do not fit 32 bits")
    low, high = clipping_of(operator, output)
    fields: dict[str, Field] = {
        "multiplier": multiplier,
        "a_zero": a.zero_point,
        "b_zero": b.zero_point,
        "out_zero": output.zero_point,
        "width": a.width,
        "channels": a.channels,
        "b_column": b.channels if b.width > 1 else 0,
        "b_channel": int(b.channels > 1),
        "b_row": int(b.height > 1),
        "shift": shift,
        "low": low,
        "high": high,
    }
    windows = (ELEMENTWISE, ELEMENTWISE if b.shape == shape else Window() if b.height > 1 else Window(0, 1, 0))
    lowering.add(Step("kbnn_multiply", Struct("kbnn_multiply_params", fields, output.name), (a, b), windows, output))


def _sum(lowering: Lowering, operator: Operator) -> None:
    """The sum or difference of two values."""
    a, b, output = lowering.tensor(operator, 0), lowering.tensor(operator, 1), lowering.output(operator)
    if not a.height == b.height == output.height or not a.row_bytes == b.row_bytes == output.row_bytes:
        raise refused(operator, "its two values have different shapes")
    if operator.name == "SUB":
        b = _negated(lowering, b)
    clipping = clipping_of(operator, output)
    multipliers = _sum_multipliers(operator, a.scale, b.scale, output.scale)
    levels = integer.LEVELS[:, None] - a.zero_point, integer.LEVELS[None, :] - b.zero_point
    vectors, alone = (
        integer.saturated(_added(*levels, multipliers, term) + output.zero_point, *clipping)
        for term in (integer.term_in_vector, integer.term_alone)
    )
    # TensorFlow Lite adds in vectors, but subtracts value by value.
    count = output.height * output.row_bytes
    in_vectors = 0 if operator.name == "SUB" else count // INT8_VECTOR * INT8_VECTOR
    is_split = 0 < in_vectors < count and np.any(vectors != alone)
    table = vectors if in_vectors else alone
    found = None if is_split else integer.fit_sum(table, a.scale / output.scale, b.scale / output.scale)
    if found is None:
        lowering.add(_exact_sum(a, b, output, multipliers, clipping, in_vectors))
        return
    fields: dict[str, Field] = {
        "a_multiplier": found.a_multiplier,
        "b_multiplier": found.b_multiplier,
        "offset": found.offset,
        "values": output.row_bytes,
        "shift": found.shift,
    }
    kernel = "kbnn_add_wide" if found.wide else "kbnn_add"
    params = Struct(f"{kernel}_params", fields, output.name)
    lowering.add(Step(kernel, params, (a, b), (ELEMENTWISE, ELEMENTWISE), output))


def _added(a: np.ndarray, b: np.ndarray, multipliers: _Multipliers, term: Callable[..., np.ndarray]) -> np.ndarray:
    """TensorFlow Lite's sum of two int8 values without zero points; `term` rescales each."""
    return integer.rescaled(term(a, *multipliers[0]) + term(b, *multipliers[1]), *multipliers[2])


def _sum_multipliers(operator: Operator, *scales: float) -> _Multipliers:
    """The multipliers for the scales of a, b and the output."""
    a, b, out = (np.float64(np.float32(scale)) for scale in scales)
    if max(a, b) > 64 * out:
        raise refused(operator, "its inputs have 64 times the range of its output, which overflows 16 bits")
    twice = 2.0 * max(a, b)
    return [integer.quantized_multiplier(float(real)) for real in (a / twice, b / twice, twice / (2.0**20 * out))]


def _negated(lowering: Lowering, value: Tensor) -> Tensor:
    """A tensor with the opposite sign: all bits of values and zero point are inverted, so that none overflows."""
    negated = dataclasses.replace(value, name=f"{value.name}/negated", zero_point=~value.zero_point, memory="arena")
    table = np.repeat(~integer.LEVELS[:, None], value.channels, axis=1).astype(np.int8)
    lowering.add(function_step(value, table, negated))
    return negated


def _exact_sum(
    a: Tensor, b: Tensor, output: Tensor, multipliers: _Multipliers, clipping: tuple[int, int], in_vectors: int
) -> Step:
    fields: dict[str, Field] = {
        "multiplier": Array("", np.array([multiplier for multiplier, _ in multipliers]), ""),
        "in_vectors": in_vectors,
        "shift": Array("", np.array([shift for _, shift in multipliers]), ""),
        "zero": Array("", np.array([a.zero_point, b.zero_point, output.zero_point]), ""),
        "values": output.row_bytes,
        "low": clipping[0],
        "high": clipping[1],
    }
    params = Struct("kbnn_add_exact_params", fields, output.name)
    return Step("kbnn_add_exact", params, (a, b), (ELEMENTWISE, ELEMENTWISE), output)
