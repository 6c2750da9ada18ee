"""Rules of convolutions and dense layers, binary and real-valued."""

import dataclasses
from collections.abc import Callable, Sequence

import larq as lq
import numpy as np
import tensorflow as tf

from kbnn.converters.graph import operations as op
from kbnn.converters.graph.binary_layers import has_threshold, levels
from kbnn.converters.graph.rules import Context, Step, SumOfChains, activation, numbers, rule
from kbnn.converters.graph.slices import PROBE
from kbnn.converters.graph.trace import Call
from kbnn.layers import BinaryConv2D, BinaryDense
from kbnn.layers.channels import Padding, same_padding
from kbnn.quantizers.registry import SIGNS, levels_of
from kbnn.structure import is_binary

layers = tf.keras.layers

# Centre and distance per filter, and the signs, of a kernel with two values per filter.
Levels = tuple[np.ndarray, np.ndarray, np.ndarray]


@rule(layers.Conv2D, lq.layers.QuantConv2D, BinaryConv2D)
def _convolution(call: Call, context: Context) -> list[Step] | None:
    layer = call.layer
    if layer.data_format != "channels_last" or id(call) not in context.kernels:
        return None
    if is_binary(layer) or _reads_signs(call, context):
        return _binary_convolution(call, context)
    if _quantizes_input(layer) or id(call) in context.numbers:
        return None
    kernel = context.kernel(call)
    scale, bias = _scale_and_bias(layer, kernel.shape[-1])
    if layer.padding == "same" and getattr(layer, "pad_values", 0.0) != 0.0 and tuple(layer.kernel_size) != (1, 1):
        return None
    # A 1x1 kernel needs no padding, and constants can be moved through a layer without padding.
    padding = "valid" if tuple(layer.kernel_size) == (1, 1) else layer.padding
    convolution = op.Convolution(kernel * scale, bias, layer.strides, layer.dilation_rate, padding, layer.groups)
    return [("conv", convolution, None), *activation(layer, kernel.shape[-1])]


@rule(layers.DepthwiseConv2D)
def _depthwise(call: Call, context: Context) -> list[Step] | None:
    layer = call.layer
    if layer.data_format != "channels_last" or _quantizes_input(layer):
        return None
    kernel = numbers(layer.depthwise_kernel)
    filters = kernel.shape[2] * kernel.shape[3]
    bias = numbers(layer.bias) if layer.use_bias else np.zeros(filters)
    return [("conv", _depthwise_convolution(layer, kernel, bias), None), *activation(layer, filters)]


def _depthwise_convolution(
    layer: tf.keras.layers.Layer, kernel: np.ndarray, bias: np.ndarray
) -> op.DepthwiseConvolution:
    """The convolution of a layer with a depthwise kernel `(h, w, C, multiplier)`."""
    return op.DepthwiseConvolution(
        kernel.reshape(*kernel.shape[:2], 1, -1),
        bias,
        layer.strides,
        layer.dilation_rate,
        "valid" if tuple(layer.kernel_size) == (1, 1) else layer.padding,
        kernel.shape[3],
    )


@rule(layers.SeparableConv2D)
def _separable(call: Call, context: Context) -> list[Step] | None:
    """A depthwise convolution, then a 1x1 convolution, whose kernel the graph may hold rounded."""
    layer = call.layer
    pointwise = context.reference.operations(call, ("Conv2D",))
    if layer.data_format != "channels_last" or len(pointwise) != 1:
        return None
    kernel = numbers(layer.depthwise_kernel)
    channels = kernel.shape[2] * kernel.shape[3]
    (mixing,) = context.reference.constants([str(pointwise[0].inputs[1].name)])
    filters = mixing.shape[-1]
    depthwise = _depthwise_convolution(layer, kernel, np.zeros(channels))
    bias = numbers(layer.bias) if layer.use_bias else np.zeros(filters)
    shape = (*context.reference.shape(call.outputs[0])[:2], channels)
    return [
        ("depthwise", depthwise, shape),
        ("conv", op.Convolution(mixing, bias, (1, 1), (1, 1), "valid"), None),
        *activation(layer, filters),
    ]


@rule(lq.layers.QuantConv1D)
def _convolution_1d(call: Call, context: Context) -> list[Step] | None:
    """Lifted as a convolution over an image with one row."""
    layer = call.layer
    is_packed = is_binary(layer) or _reads_signs(call, context)
    if layer.data_format != "channels_last" or layer.padding == "causal" or id(call) not in context.kernels:
        return None
    return _binary_convolution(call, context) if is_packed else None


@rule(layers.Dense, lq.layers.QuantDense, BinaryDense)
def _dense(call: Call, context: Context) -> list[Step] | None:
    """On an image, a dense layer is a 1x1 convolution."""
    layer, shape = call.layer, context.input_shape(call)
    if len(shape) not in (1, 3) or id(call) not in context.kernels:
        return None
    if is_binary(layer) or _reads_signs(call, context):
        return _binary_dense(call, context) if len(shape) == 1 else None
    if _quantizes_input(layer) or id(call) in context.numbers:
        return None
    kernel = context.kernel(call).reshape(shape[-1], -1)
    scale, bias = _scale_and_bias(layer, kernel.shape[-1])
    dense: op.Operation = op.Dense(kernel * scale, bias)
    if len(shape) == 3:
        dense = op.Convolution(kernel[np.newaxis, np.newaxis] * scale, bias, (1, 1), (1, 1), "valid")
    return [("dense", dense, None), *activation(layer, kernel.shape[-1])]


def _binary_convolution(call: Call, context: Context) -> list[Step] | None:
    layer = call.layer
    found = levels(context.kernel(call))
    if found is None or not _takes_signs(call, context):
        return None
    given, returned = context.input_shape(call), context.reference.shape(call.outputs[0])
    is_row = len(given) == 2
    shape, output = ((1, *given), (1, *returned)) if is_row else (given, returned)
    padding = _padding(layer, shape)
    pad_value = float(getattr(layer, "pad_values", 0.0))
    steps: list[Step] = [("row", op.Reshape(shape), shape)] if is_row else []
    steps += _threshold(layer, shape)
    if _pads(padding) and pad_value not in (0.0, 1.0):
        if pad_value != -1.0:
            return None
        # A border of negative numbers before the sign is a border of -1 after it.
        shape = tuple(np.add(shape[:2], [sum(sides) for sides in padding])) + shape[2:]
        steps.append(("pad", op.Pad(padding, -1.0), shape))
        padding = ((0, 0), (0, 0))
    groups = layer.groups
    convolution = op.BinaryConvolution(
        call=context.numbers[id(call)],
        signs=found[2],
        rows=np.tile(np.arange(found[2].shape[2]), (groups, 1)),
        filters=np.arange(found[2].shape[-1]),
        strides=_pair(layer.strides),
        dilations=_pair(layer.dilation_rate),
        padding=padding,
        pad_value=pad_value,
    )
    if steps or not _reads_signs(call, context) or not context.is_sign(call.inputs[0]):
        steps.append(("sign", op.Sign(), shape))
    steps += _products(layer, convolution, found, output)
    return [*steps, *([("flat", op.Reshape(returned), None)] if is_row else []), *activation(layer, output[-1])]


def _binary_dense(call: Call, context: Context) -> list[Step] | None:
    """Lifted as a 1x1 convolution over one pixel, because LCE has no binary dense operator."""
    layer, inputs = call.layer, context.input_shape(call)[0]
    found = levels(context.kernel(call).reshape(1, 1, inputs, -1))
    if found is None or not _takes_signs(call, context):
        return None
    units, pixel = found[2].shape[-1], (1, 1, inputs)
    convolution = op.BinaryConvolution(
        call=context.numbers[id(call)],
        signs=found[2],
        rows=np.arange(inputs)[np.newaxis],
        filters=np.arange(units),
        strides=(1, 1),
        dilations=(1, 1),
        padding=((0, 0), (0, 0)),
        pad_value=1.0,
    )
    return [
        ("pixel", op.Reshape(pixel), pixel),
        *_threshold(layer, pixel),
        ("sign", op.Sign(), pixel),
        *_products(layer, convolution, found, (1, 1, units)),
        ("flat", op.Reshape((units,)), None),
        *activation(layer, units),
    ]


def _threshold(layer: tf.keras.layers.Layer, shape: op.Shape) -> list[Step]:
    """The step that subtracts a learned threshold before the sign."""
    if not has_threshold(layer):
        return []
    ones = np.ones(shape[-1])
    return [("threshold", op.Affine(ones, -float(layer.input_quantizer.beta) * ones), shape)]


def _products(
    layer: tf.keras.layers.Layer, convolution: op.BinaryConvolution, kernel: Levels, output: op.Shape
) -> list[Step]:
    """The convolution of signs x with a kernel centre + distance·k, followed by the layer's scale and bias.

    x ∗ (centre + distance·k) = distance·(x ∗ k) + centre·(x ∗ 1), where 1 is a kernel of ones.
    """
    centre, distance, _ = kernel
    scale, bias = _scale_and_bias(layer, len(centre))
    chain: list[Step] = [("conv", convolution, output), ("scale", op.Affine(distance * scale, bias), output)]
    if not np.any(centre):
        return chain
    groups, filters = convolution.groups, len(centre)
    sums = (*output[:-1], groups)
    # Maps the sum of group g to each of the group's filters, multiplied by the filter's centre.
    of_group = np.repeat(np.eye(groups), filters // groups, axis=1) * centre * scale
    ones = np.ones((*convolution.signs.shape[:3], groups), np.float32)
    counted = dataclasses.replace(convolution, call=op.NO_LAYER, signs=ones, filters=np.arange(groups))
    spread = op.Convolution(of_group[np.newaxis, np.newaxis], np.zeros(filters), (1, 1), (1, 1), "valid")
    return [("sum", SumOfChains((chain, (("ones/conv", counted, sums), ("centre", spread, output)))), output)]


def _quantizes_input(layer: tf.keras.layers.Layer) -> bool:
    return getattr(layer, "input_quantizer", None) is not None


def _scale_and_bias(layer: tf.keras.layers.Layer, filters: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the bias that a layer applies to each filter's output."""
    scale, bias = np.ones(filters), np.zeros(filters)
    if isinstance(layer, BinaryConv2D | BinaryDense):
        factor, offset = layer.output_scale(), layer.output_offset()
        scale = scale if factor is None else scale * numbers(factor)
        bias = bias if offset is None else bias + numbers(offset)
    return scale, bias + numbers(layer.bias) if layer.use_bias else bias


def _reads_signs(call: Call, context: Context) -> bool:
    """Whether a layer with a 1-bit kernel and no input quantizer reads signs that an earlier layer computed."""
    return id(call) in context.numbers and not _quantizes_input(call.layer) and context.holds_signs(call.inputs[0])


def _takes_signs(call: Call, context: Context) -> bool:
    """Whether a layer convolves signs, its own or those of an earlier layer."""
    return _reads_signs(call, context) or has_threshold(call.layer) or _is_sign(call.layer.input_quantizer)


def _is_sign(quantizer: Callable[[tf.Tensor], tf.Tensor]) -> bool:
    """Whether a quantizer computes what `operations.Sign` does: sign(x) elementwise, with sign(0) = +1."""
    if levels_of(quantizer) not in (SIGNS, None):
        return False
    try:
        found = np.asarray(quantizer(tf.constant(PROBE.reshape(1, 1, 1, -1)))).ravel()
    except Exception:
        return False
    return bool(np.array_equal(found, np.where(PROBE >= 0, 1.0, -1.0)))


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    """Height and width; a single number is the width of a row."""
    height, width = numbers if len(numbers) == 2 else (1, *numbers)
    return height, width


def _padding(layer: tf.keras.layers.Layer, shape: op.Shape) -> Padding:
    if layer.padding == "valid":
        return ((0, 0), (0, 0))
    return same_padding(shape[:2], *map(_pair, (layer.kernel_size, layer.strides, layer.dilation_rate)))


def _pads(padding: Padding) -> bool:
    return any(any(sides) for sides in padding)
