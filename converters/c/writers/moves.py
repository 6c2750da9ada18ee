"""Operators that only move values: they concatenate, split, pad or reorder them."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Field, Step, Struct, Tensor, Window
from kbnn.converters.c.writers.lowering import Function, Lowering, Padded, Reordered, writes
from kbnn.converters.c.writers.operators import quantization, refused, sample_shape
from kbnn.converters.c.writers.steps import channels_step
from kbnn.converters.tflite.flatbuffer import Operator


@writes("CONCATENATION")
def _concatenation(lowering: Lowering, operator: Operator) -> None:
    values = [lowering.tensor(operator, k) for k in range(len(operator.inputs))]
    output = lowering.output(operator)
    if len(values) < 2:
        raise refused(operator, "it joins a single value")
    if not _is_last_axis(operator, int(operator.options.get("axis") or 0)):
        raise refused(operator, "it is supported along channels only")
    if any(tensor.quantization != output.quantization for tensor in values):
        raise refused(operator, "its inputs have different scales")
    whole = values[0]
    for k, value in enumerate(values[1:], 2):
        channels = whole.channels + value.channels
        name = f"{output.name}/{k}"
        made = output if k == len(values) else dataclasses.replace(whole, name=name, channels=channels, memory="arena")
        lowering.add(channels_step((whole, value), np.arange(channels), made))
        whole = made


def _is_last_axis(operator: Operator, axis: int) -> bool:
    return axis in (-1, len(operator.outputs[0].shape) - 1)


@writes("PAD", "PADV2")
def _pad(lowering: Lowering, operator: Operator) -> None:
    """A border of the zero point, or with PADV2 of any value, around the image, and channels of it."""
    source, output = lowering.tensor(operator), lowering.output(operator)
    sides = operator.inputs[1]
    if sides is None or sides.data is None or sides.shape != (4, 2):
        raise refused(operator, "its sides are not constants for an image")
    (batch, rows, columns, channels) = sides.value().tolist()
    if any(batch) or source.quantization != output.quantization:
        raise refused(operator, "it pads the batch, or its input and output have different scales")
    value = source.zero_point
    if operator.name == "PADV2":
        constant = operator.inputs[2]
        if constant is None or constant.dtype != "int8" or quantization(operator, constant) != source.quantization:
            raise refused(operator, "its value is not a constant with the scale of its input")
        value = int(constant.value().reshape(-1)[0])
    if any(channels):
        order = np.concatenate([np.full(channels[0], -1), np.arange(source.channels), np.full(channels[1], -1)])
        wide = (
            output
            if not any(rows + columns)
            else dataclasses.replace(source, name=f"{output.name}/channels", channels=len(order), memory="arena")
        )
        lowering.add(channels_step((source,), order, wide, value))
        source = wide
    if any(rows + columns) or not any(channels):
        step = _border_step(source, output, rows[0], columns, value)
        is_zero = value == source.zero_point
        held = Padded(source, rows[0], columns[0], output, step) if is_zero else output
        lowering.values[operator.outputs[0].index] = held
        if not is_zero:
            lowering.add(step)


def _border_step(source: Tensor, output: Tensor, top: int, columns: Sequence[int], value: int) -> Step:
    fields: dict[str, Field] = {
        "before": columns[0] * source.channels,
        "inside": source.row_bytes,
        "after": columns[1] * source.channels,
        "top": top,
        "height": source.height,
        "value": value,
    }
    params = Struct("kbnn_pad_params", fields, output.name)
    return Step("kbnn_pad", params, (source,), (Window(padding=top),), output)


@writes("SPLIT")
def _split(lowering: Lowering, operator: Operator) -> None:
    source = lowering.tensor(operator, 1)
    axis = operator.inputs[0]
    if axis is None or not _is_last_axis(operator, int(np.atleast_1d(axis.value())[0])):
        raise refused(operator, "it is supported along channels only")
    for k in range(len(operator.outputs)):
        output = lowering.output(operator, k)
        lowering.add(channels_step((source,), np.arange(output.channels) + k * output.channels, output))


@writes(
    "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "STRIDED_SLICE", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE",
    "RESIZE_NEAREST_NEIGHBOR",
)  # fmt: skip
def _reorder(lowering: Lowering, operator: Operator) -> None:
    """Follows the index of each value through operators that only move values, such as those of a channel shuffle."""
    value = lowering.of(operator, 0, Tensor, Reordered, Function)
    if isinstance(value, Function):
        _reshape_function(lowering, operator, value)
        return
    source, item = operator.operands[0], operator.outputs[0]
    tensor = value if isinstance(value, Tensor) else value.tensor
    before = value.places if isinstance(value, Reordered) else np.arange(math.prod(source.shape)).reshape(source.shape)
    places = _MOVES.get(operator.name, _reshaped)(operator, before)
    if places.shape != item.shape:
        raise refused(operator, f"it turns the shape {source.shape} into {item.shape}")
    is_same = np.array_equal(places.ravel(), np.arange(tensor.height * tensor.row_bytes))
    lowering.values[item.index] = (
        tensor if is_same and sample_shape(item.shape) == tensor.shape else Reordered(tensor, places, operator)
    )


def _constant(operator: Operator, number: int) -> np.ndarray:
    """An operand that says how values move."""
    item = operator.inputs[number]
    if item is None or item.data is None:
        raise refused(operator, "the places of its values are not constants")
    return item.value()


def _reshaped(operator: Operator, places: np.ndarray) -> np.ndarray:
    return places.reshape(operator.outputs[0].shape)


def _transposed(operator: Operator, places: np.ndarray) -> np.ndarray:
    return places.transpose(_constant(operator, 1))


def _sliced(operator: Operator, places: np.ndarray) -> np.ndarray:
    options = operator.options
    if options.get("ellipsisMask") or options.get("newAxisMask"):
        raise refused(operator, "it slices with an ellipsis or a new axis")
    first, last, steps = (_constant(operator, k).tolist() for k in (1, 2, 3))
    masks = [int(options.get(name) or 0) for name in ("beginMask", "endMask", "shrinkAxisMask")]
    index: list[slice | int] = []
    for axis, (begin, end, step) in enumerate(zip(first, last, steps, strict=True)):
        opens, ends, shrinks = (mask >> axis & 1 for mask in masks)
        index.append(begin if shrinks else slice(None if opens else begin, None if ends else end, step))
    return places[tuple(index)]


def _blocks_in_channels(operator: Operator, places: np.ndarray) -> np.ndarray:
    """The pixels of each block as the channels of one pixel."""
    size = int(operator.options["blockSize"])
    batch, height, width, channels = places.shape
    blocks = places.reshape(batch, height // size, size, width // size, size, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(operator.outputs[0].shape)


def _channels_in_blocks(operator: Operator, places: np.ndarray) -> np.ndarray:
    """The reverse."""
    size = int(operator.options["blockSize"])
    batch, height, width, channels = places.shape
    blocks = places.reshape(batch, height, width, size, size, channels // size**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(operator.outputs[0].shape)


def _enlarged(operator: Operator, places: np.ndarray) -> np.ndarray:
    """The nearest pixels, with indices in single precision."""
    options = operator.options
    for axis, size in zip((1, 2), _constant(operator, 1).tolist(), strict=True):
        held = places.shape[axis]
        is_aligned = bool(options.get("alignCorners")) and size > 1
        scale = np.float32(held - 1) / np.float32(size - 1) if is_aligned else np.float32(held) / np.float32(size)
        at = (np.arange(size, dtype=np.float32) + np.float32(0.5 * bool(options.get("halfPixelCenters")))) * scale
        index = integer.rounded(at) if options.get("alignCorners") else np.floor(at).astype(np.int64)
        places = places.take(np.clip(index, 0, held - 1), axis=axis)
    return places


_MOVES: dict[str, Callable[[Operator, np.ndarray], np.ndarray]] = {
    "TRANSPOSE": _transposed,
    "STRIDED_SLICE": _sliced,
    "SPACE_TO_DEPTH": _blocks_in_channels,
    "DEPTH_TO_SPACE": _channels_in_blocks,
    "RESIZE_NEAREST_NEIGHBOR": _enlarged,
}


def _reshape_function(lowering: Lowering, operator: Operator, value: Function) -> None:
    """Reshapes one pixel into a vector, or the reverse."""
    shapes = [tensor.shape for tensor in (operator.inputs[0], operator.outputs[0]) if tensor is not None]
    if len({tuple(size for size in shape if size != 1) for shape in shapes}) != 1:
        raise refused(operator, "it reshapes a float value")
    lowering.values[operator.outputs[0].index] = value
