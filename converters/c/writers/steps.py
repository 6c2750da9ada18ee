"""Steps that several writers add: functions of int8 values, and values in other places."""

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Array, Field, Step, Struct, Tensor, Window
from kbnn.converters.c.writers.operators import refused
from kbnn.converters.tflite.flatbuffer import Operator

ELEMENTWISE = Window(in_place=True)


def function_step(source: Tensor, table: np.ndarray, output: Tensor) -> Step:
    """An int8 function of an int8 value, `(256, C)`, as one line per channel, two that meet at zero, or a table."""
    line = integer.fit(integer.LEVELS, table, int(table.min()), int(table.max()))
    if line is not None:
        return _affine_step(source, output, line, line, integer.LOW, source.channels)
    has_two = integer.LOW < source.zero_point <= integer.HIGH
    step = _two_lines(source, table, output) if has_two else None
    return step or _table_step(source, table, output)


def _two_lines(source: Tensor, table: np.ndarray, output: Tensor) -> Step | None:
    """One line per channel below zero, and one for all channels above."""
    split = source.zero_point - integer.LOW
    negative, positive = integer.LEVELS[:split], integer.LEVELS[split:]
    if np.any(table[split:] != table[split:, :1]):
        return None
    below, above = integer.fit(negative, table[:split]), integer.fit(positive, table[split:, :1])
    if below is None or above is None:
        return None
    for shift in range(min(below.shift, above.shift), 7, -1):
        pair = [integer.with_shift(line, shift) for line in (below, above)]
        done = np.concatenate(
            [pair[0](negative[:, None]), np.broadcast_to(pair[1](positive[:, None]), table[split:].shape)]
        )
        if np.array_equal(done, table):
            return _affine_step(source, output, pair[0], pair[1], source.zero_point, 1)
    return None


def _affine_step(
    source: Tensor, output: Tensor, below: integer.Line, above: integer.Line, split: int, above_channels: int
) -> Step:
    fields: dict[str, Field] = {
        "below": channel_constants(f"{output.name}/below", below.multiplier, below.offset),
        "above": channel_constants(f"{output.name}/above", above.multiplier, above.offset),
        "width": source.width,
        "channels": source.channels,
        "above_channels": above_channels,
        "split": split,
        "shift": below.shift,
        "low": below.low,
        "high": below.high,
    }
    if below is above:
        fields["below"] = fields["above"]
    params = Struct("kbnn_affine_params", fields, output.name)
    return Step("kbnn_affine", params, (source,), (ELEMENTWISE,), output)


def channel_constants(name: str, multiplier: np.ndarray, offset: np.ndarray) -> Array:
    return Array("kbnn_channel", np.stack([multiplier, offset], axis=1), name)


def _table_step(source: Tensor, table: np.ndarray, output: Tensor) -> Step:
    """A table per channel, or one for all channels if they agree."""
    tables = table[:, :1] if np.all(table == table[:, :1]) else table
    fields: dict[str, Field] = {
        "table": Array("int8_t", tables.T.ravel(), f"{output.name}/table"),
        "width": source.width,
        "channels": source.channels,
        "tables": tables.shape[1],
    }
    params = Struct("kbnn_table_params", fields, output.name)
    return Step("kbnn_table", params, (source,), (ELEMENTWISE,), output)


def reordering_step(operator: Operator, tensor: Tensor, places: np.ndarray, output: Tensor) -> Step:
    """A step for values in other places: other channels, another shape, or independent places by axis."""
    places = places.reshape(output.shape)
    order = places[0, 0]
    # Which channels of its own pixel each output channel is.
    pixels = np.arange(tensor.height * tensor.width).reshape(tensor.height, tensor.width, 1) * tensor.channels
    if tensor.shape[:2] == places.shape[:2] and np.array_equal(places, pixels + order):
        return channels_step((tensor,), order, output)
    # Every row may read any row of the source, which must outlast the step.
    whole = (Window(0, tensor.height, 0),)
    if np.array_equal(places.ravel(), np.arange(tensor.height * tensor.row_bytes)):
        params = Struct("kbnn_reshape_params", {"bytes": output.row_bytes}, output.name)
        return Step("kbnn_reshape", params, (tensor,), whole, output)
    rows, columns = places[:, 0, 0], places[0, :, 0] - places[0, 0, 0]
    channels = order - order[0]
    if not np.array_equal(places, rows[:, None, None] + columns[:, None] + channels):
        raise refused(operator, "its values do not move by whole rows, columns and channels")
    fields: dict[str, Field] = {
        "rows": Array("int32_t", rows, f"{output.name}/rows"),
        "columns": Array("int32_t", columns, f"{output.name}/columns"),
        "places": Array("int32_t", channels, f"{output.name}/places"),
        "width": output.width,
        "channels": output.channels,
    }
    return Step("kbnn_rearrange", Struct("kbnn_rearrange_params", fields, output.name), (tensor,), whole, output)


def channels_step(inputs: tuple[Tensor, ...], source: np.ndarray, output: Tensor, constant: int | None = None) -> Step:
    fields: dict[str, Field] = {
        "source": Array("int16_t", source, f"{output.name}/source"),
        "width": output.width,
        "channels0": inputs[0].channels,
        "channels1": inputs[-1].channels if len(inputs) > 1 else 0,
        "channels": output.channels,
        "constant": output.zero_point if constant is None else constant,
    }
    params = Struct("kbnn_channels_params", fields, output.name)
    return Step("kbnn_channels", params, inputs, tuple(Window() for _ in inputs), output)
