"""Layer normalizations, whose operators the file has one by one in float, and softmax."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kbnn.converters.c.plan import Array, Field, Step, Struct, Tensor, Window
from kbnn.converters.c.writers.lowering import Function, Lowering, Normalizing, Value, writes
from kbnn.converters.c.writers.operators import refused
from kbnn.converters.c.writers.steps import ELEMENTWISE
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import Operator

# The stage that two intermediate values of a layer normalization lead to; `x` is the tensor itself in float.
_STAGES = {
    ("MUL", "mean", "mean"): "squared_mean",
    ("MUL", "x", "x"): "square",
    ("SUB", "mean_square", "squared_mean"): "variance",
    ("MUL", "mean", "factor"): "shift",
    ("MUL", "mean", "scale"): "shift",
    ("MUL", "x", "factor"): "scaled",
    ("MUL", "x", "scale"): "scaled",
    ("SUB", "scaled", "shift"): "normalized",
    ("ADD", "scaled", "offset"): "normalized",
}


def _stage(operator: Operator, value: Value | None) -> Normalizing:
    """A value as a stage of a layer normalization; the tensor itself is stage `x`."""
    if isinstance(value, Normalizing):
        return value
    if isinstance(value, Function) and isinstance(value.source, Tensor) and value.is_dequantized:
        return Normalizing("x", value.source)
    raise refused(operator, "it is supported only in a layer normalization, or with a constant per channel")


def next_stage(operator: Operator, held: Sequence[Value | None], constants: list[flatbuffer.Tensor]) -> Normalizing:
    values = [_stage(operator, value) for value in held]
    first, channels = values[0], values[0].tensor.channels
    given = [np.asarray(item.value(), np.float32).reshape(-1) for item in constants]
    found: Normalizing | None = None
    if len(values) == 2 and values[1].tensor is first.tensor:
        stage = _STAGES.get((operator.name, first.stage, values[1].stage))
        known = [value for value in values if value.stage in ("factor", "scale", "scaled", "offset", "shift")]
        merged = [value for value in known if value.offset is not None] or known
        found = dataclasses.replace(merged[0] if merged else first, stage=stage) if stage else None
    elif len(given) == 1 and operator.name == "ADD" and first.stage == "variance" and len(given[0]) == 1:
        found = dataclasses.replace(first, stage="variance_and_epsilon", epsilon=float(given[0][0]))
    elif len(given) == 1 and operator.name == "MUL" and first.stage == "factor" and len(given[0]) == channels:
        found = dataclasses.replace(first, stage="scale", scale=given[0])
    elif len(given) == 1 and operator.name == "SUB" and first.stage == "shift" and operator.inputs[0] is constants[0]:
        found = dataclasses.replace(first, stage="offset", offset=np.broadcast_to(given[0], (channels,)))
    if found is None or operator.options.get("fusedActivationFunction"):
        raise refused(
            operator,
            "it combines float values, which has a form only in a layer normalization over height, width and channels "
            "together; combine three or more values in pairs, which are int8",
        )
    return found


@writes("RSQRT")
def _reciprocal_root(lowering: Lowering, operator: Operator) -> None:
    value = lowering.of(operator, 0, Normalizing)
    if value.stage != "variance_and_epsilon":
        raise refused(operator, "it is supported only in a layer normalization")
    lowering.values[operator.outputs[0].index] = dataclasses.replace(value, stage="factor")


def float_mean(lowering: Lowering, operator: Operator) -> None:
    """Over height and width, then over channels."""
    value = _stage(operator, lowering.of(operator, 0, Function, Normalizing))
    axes = operator.inputs[1]
    over = [] if axes is None else sorted(np.atleast_1d(axes.value()).tolist())
    stages = {
        ("x", (1, 2)): "mean_of_pixels",
        ("square", (1, 2)): "mean_square_of_pixels",
        ("mean_of_pixels", (3,)): "mean",
        ("mean_square_of_pixels", (3,)): "mean_square",
    }
    stage = stages.get((value.stage, tuple(over)))
    if stage is None or not operator.options.get("keepDims"):
        raise refused(
            operator, "it is supported only in a layer normalization over height, width and channels together"
        )
    lowering.values[operator.outputs[0].index] = dataclasses.replace(value, stage=stage)


def normalize(lowering: Lowering, operator: Operator, value: Normalizing) -> None:
    if value.stage != "normalized":
        raise refused(operator, "it ends an incomplete layer normalization")
    source, output = value.tensor, lowering.output(operator)
    if source.height * source.width * source.channels % 16:
        raise refused(
            operator, "a layer normalization is rounded differently if its number of values is not a multiple of 16"
        )
    moments = Tensor(f"{output.name}/moments", 1, 2, source.channels, "float")
    step = np.float32(source.scale)
    fields: dict[str, Field] = {
        "scale": 0 if value.scale is None else Array("float", value.scale, f"{output.name}/scale"),
        "offset": 0 if value.offset is None else Array("float", value.offset, f"{output.name}/offset"),
        "step": float(step),
        "zero": float(step * np.float32(source.zero_point)),
        "epsilon": value.epsilon,
        "out_inverse": float(np.float32(1) / np.float32(output.scale)),
        "height": source.height,
        "width": source.width,
        "channels": source.channels,
        "out_zero": output.zero_point,
    }
    params = Struct("kbnn_normalize_params", fields, output.name)
    whole = Window(source.height, source.height, 0)
    lowering.add(Step("kbnn_moments", params, (source,), (whole,), moments))
    every = Window(0, 1, 0)
    lowering.add(Step("kbnn_normalize", params, (source, moments), (ELEMENTWISE, every), output))


@writes("SOFTMAX")
def _softmax(lowering: Lowering, operator: Operator) -> None:
    """exp(x) / sum(exp(x)) over channels, from a table of exp(-k·scale) for the distance k to the largest value."""
    source, output = lowering.tensor(operator), lowering.output(operator)
    if source.shape != output.shape:
        raise refused(operator, "its input and output have different shapes")
    step = np.float32(source.scale) * np.float32(operator.options.get("beta") or 1.0)
    exponents = -step * np.arange(256, dtype=np.float32)
    powers = np.exp(exponents.astype(np.float64)).astype(np.float32)
    fields: dict[str, Field] = {
        "powers": Array("float", powers, f"{output.name}/powers"),
        "out_scale": output.scale,
        "width": output.width,
        "channels": output.channels,
        "out_zero": output.zero_point,
    }
    params = Struct("kbnn_softmax_params", fields, output.name)
    lowering.add(Step("kbnn_softmax", params, (source,), (Window(),), output))
