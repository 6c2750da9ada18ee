"""Pooling, and means and maxima over the image."""

import dataclasses

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Field, Step, Struct, Tensor, Window, words_of
from kbnn.converters.c.writers.lowering import Derived, Lowering, writes
from kbnn.converters.c.writers.normalization import float_mean
from kbnn.converters.c.writers.operators import Geometry, clipping_of, option_of, refused
from kbnn.converters.tflite.flatbuffer import Operator


@writes("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(lowering: Lowering, operator: Operator) -> None:
    value, output = lowering.of(operator, 0, Tensor, Derived), lowering.output(operator)
    size = (option_of(operator.options, "filterHeight"), option_of(operator.options, "filterWidth"))
    kernel = "kbnn_average_pool" if operator.name == "AVERAGE_POOL_2D" else "kbnn_max_pool"
    pooled = value.tensor if isinstance(value, Derived) else value
    if pooled.quantization != output.quantization:
        raise refused(operator, "its input and output have different scales")
    clipping = clipping_of(operator, output)
    geometry = Geometry.of(operator, pooled, size, (1, output.height, output.width, 0))
    is_plain = size == geometry.strides and not geometry.is_padded and clipping == (integer.LOW, integer.HIGH)
    is_fused = isinstance(value, Derived) and value.step is not None and kernel == "kbnn_average_pool" and is_plain
    if not isinstance(value, Derived) or value.step is None or not is_fused:
        lowering.add(_pool_step(kernel, operator, lowering.tensor(operator), output, size, clipping))
        return
    # The PReLU's result, which has more rows, is never stored.
    fields: dict[str, Field] = {
        "prelu": value.step.params,
        "out_width": output.width,
        "size_y": size[0],
        "size_x": size[1],
    }
    params = Struct("kbnn_prelu_pool_params", fields, output.name)
    lowering.add(Step("kbnn_average_pool_of_prelu", params, (value.source,), (geometry.window(),), output))


@writes("LceBMaxPool2d")
def _max_pool_of_bits(lowering: Lowering, operator: Operator) -> None:
    source = lowering.of(operator, 0, Tensor)
    made = dataclasses.replace(lowering.output(operator, kind="bits"), channels=source.channels)
    lowering.values[operator.outputs[0].index] = made
    options = operator.options
    size = (option_of(options, "filter_height"), option_of(options, "filter_width"))
    lowering.add(_pool_step("kbnn_max_pool_bits", operator, source, made, size, (integer.LOW, integer.HIGH)))


def _pool_step(
    kernel: str,
    operator: Operator,
    source: Tensor,
    output: Tensor,
    size: tuple[int, int],
    clipping: tuple[int, int],
) -> Step:
    geometry = Geometry.of(operator, source, size, (1, output.height, output.width, 0))
    fields: dict[str, Field] = {
        "height": source.height,
        "width": source.width,
        "channels": source.channels if source.kind == "int8" else words_of(source.channels),
        "out_width": output.width,
        "size_y": size[0],
        "size_x": size[1],
        **geometry.fields,
        "low": clipping[0],
        "high": clipping[1],
    }
    return Step(kernel, Struct("kbnn_pool_params", fields, output.name), (source,), (geometry.window(),), output)


@writes("REDUCE_MAX")
def _largest(lowering: Lowering, operator: Operator) -> None:
    """The largest value of each channel: max-pooling over the whole image."""
    source, output = lowering.tensor(operator), lowering.output(operator)
    _check_over_pixels(operator)
    if source.quantization != output.quantization:
        raise refused(operator, "its input and output have different scales")
    size = (source.height, source.width)
    lowering.add(_pool_step("kbnn_max_pool", operator, source, output, size, (integer.LOW, integer.HIGH)))


@writes("MEAN")
def _mean(lowering: Lowering, operator: Operator) -> None:
    if operator.outputs[0].dtype == "float32":
        float_mean(lowering, operator)
        return
    source = lowering.tensor(operator)
    _check_over_pixels(operator)
    output = lowering.output(operator)
    count = source.height * source.width
    # TensorFlow Lite has an optimized kernel for means of images that keep their axes.
    is_kept = bool(operator.options.get("keepDims")) and len(operator.operands[0].shape) == 4
    scaling = _kept_mean if is_kept else _squeezed_mean
    multiplier, shift, offset, out_zero = scaling(source, output, count)
    if 255 * count << max(shift, 0) >= 2**31:
        raise refused(operator, f"the sum of {count} values does not fit 32 bits")
    fields: dict[str, Field] = {
        "multiplier": multiplier,
        "offset": offset,
        "out_zero": out_zero,
        "height": source.height,
        "width": source.width,
        "channels": source.channels,
        # The optimized kernel rounds halves up in vectors of 16 channels.
        "up": source.channels // 16 * 16 if is_kept else 0,
        "shift": shift,
    }
    window = Window(source.height, source.height, 0)
    lowering.add(Step("kbnn_mean", Struct("kbnn_mean_params", fields, output.name), (source,), (window,), output))


def _check_over_pixels(operator: Operator) -> None:
    """Refuses means and maxima that are not over all axes but batch and channels."""
    rank = len(operator.operands[0].shape)
    axes = operator.inputs[1]
    over = [] if axes is None else sorted(axis % rank for axis in np.atleast_1d(axes.value()).tolist())
    if over != list(range(1, rank - 1)):
        raise refused(operator, "it is supported over height and width, or over the length of a signal, only")


def _squeezed_mean(source: Tensor, output: Tensor, count: int) -> tuple[int, int, int, int]:
    """Multiplier, shift, offset of the sum and of the result: the multiplier is divided by the count in 32 bits."""
    multiplier, shift = integer.multiplier_of_scales((source.scale,), output.scale)
    spare = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << spare) // count, shift - spare, -source.zero_point * count, output.zero_point


def _kept_mean(source: Tensor, output: Tensor, count: int) -> tuple[int, int, int, int]:
    """The constants of `_squeezed_mean` for the optimized kernel: single precision, with one offset of the result."""
    in_scale, out_scale = np.float32(source.scale), np.float32(output.scale)
    moved = np.float32(source.zero_point) * in_scale / out_scale
    offset = output.zero_point - int(moved + np.copysign(np.float32(0.5), moved))
    multiplier, shift = integer.quantized_multiplier(float(in_scale / (np.float32(count) * out_scale)))
    return multiplier, shift, 0, offset
