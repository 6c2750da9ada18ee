"""Which operations each layer is at inference: one rule per layer class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from kbnn.converters.binary_layers import is_binary
from kbnn.converters.deploy import operations as op
from kbnn.converters.reference import Call, Reference
from kbnn.layers import BinaryConv2D, BinaryDense

# A suffix for the name, the operation, and the shape of its value where that is not the layer's output's.
Step = tuple[str, op.Operation, op.Shape | None]


@dataclass(frozen=True)
class Context:
    """What rules need beside the layer: Keras's binarized kernels, and the numbers of the uses of 1-bit layers."""

    reference: Reference
    kernels: dict[int, np.ndarray]
    numbers: dict[int, int]

    def kernel(self, call: Call) -> np.ndarray:
        return self.kernels[id(call)]

    def input_shape(self, call: Call) -> op.Shape:
        return self.reference.shape(call.inputs[0])


Rule = Callable[[Call, Context], list[Step] | None]
_RULES: dict[type, Rule] = {}


def rule(*classes: type) -> Callable[[Rule], Rule]:
    """Registers a rule for layer classes. Their subclasses may compute something else and stay as they are."""

    def decorator(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(classes, function))
        return function

    return decorator


def rule_for(layer: Any) -> Rule | None:
    return _RULES.get(type(layer))


layers = tf.keras.layers


@rule(
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.ActivityRegularization,
)
def _nothing(call: Call, context: Context) -> list[Step]:
    """Layers that only training needs."""
    return []


@rule(layers.Conv2D, lq.layers.QuantConv2D, BinaryConv2D)
def _convolution(call: Call, context: Context) -> list[Step] | None:
    layer = call.layer
    if layer.data_format != "channels_last" or id(call) not in context.kernels:
        return None
    if is_binary(layer):
        return _binary_convolution(call, context)
    if _binarizes_input(layer) or id(call) in context.numbers:
        return None
    kernel = context.kernel(call)
    scale, bias = _scale_and_bias(layer, kernel.shape[-1])
    if layer.padding == "same" and getattr(layer, "pad_values", 0.0) != 0.0 and tuple(layer.kernel_size) != (1, 1):
        return None
    convolution = op.Convolution(kernel * scale, bias, layer.strides, layer.dilation_rate, layer.padding)
    return [("conv", convolution, None), *_activation(layer)]


@rule(layers.Dense, lq.layers.QuantDense, BinaryDense)
def _dense(call: Call, context: Context) -> list[Step] | None:
    layer, shape = call.layer, context.input_shape(call)
    if len(shape) != 1 or id(call) not in context.kernels:
        return None
    if is_binary(layer):
        return _binary_dense(call, context)
    if _binarizes_input(layer) or id(call) in context.numbers:
        return None
    kernel = context.kernel(call).reshape(shape[0], -1)
    scale, bias = _scale_and_bias(layer, kernel.shape[-1])
    return [("dense", op.Dense(kernel * scale, bias), None), *_activation(layer)]


def _binary_convolution(call: Call, context: Context) -> list[Step] | None:
    layer, kernel = call.layer, context.kernel(call)
    magnitudes = _magnitudes(kernel)
    if magnitudes is None or not _is_sign(layer.input_quantizer):
        return None
    padding = _padding(layer, context.input_shape(call))
    pad_value = float(getattr(layer, "pad_values", 0.0))
    steps: list[Step] = []
    shape = context.input_shape(call)
    if _pads(padding) and pad_value not in (0.0, 1.0):
        if pad_value != -1.0:
            return None
        # A border of negative numbers before the sign is a border of -1 after it.
        shape = tuple(np.add(shape[:2], [sum(sides) for sides in padding])) + shape[2:]
        steps.append(("pad", op.Pad(padding, -1.0), shape))
        padding = ((0, 0), (0, 0))
    groups, filters = layer.groups, kernel.shape[-1]
    convolution = op.BinaryConvolution(
        call=context.numbers[id(call)],
        signs=np.where(kernel < 0, -1.0, 1.0).astype(np.float32),
        rows=np.tile(np.arange(kernel.shape[2]), (groups, 1)),
        filters=np.arange(filters),
        strides=tuple(layer.strides),
        dilations=tuple(layer.dilation_rate),
        padding=padding,
        pad_value=pad_value,
    )
    scale, bias = _scale_and_bias(layer, filters)
    steps += [("sign", op.Sign(), shape), ("conv", convolution, None)]
    return [*steps, ("scale", op.Affine(magnitudes * scale, bias), None), *_activation(layer)]


def _binary_dense(call: Call, context: Context) -> list[Step] | None:
    """A 1x1 convolution over one pixel: the operator that LCE has."""
    layer, inputs = call.layer, context.input_shape(call)[0]
    kernel = context.kernel(call).reshape(1, 1, inputs, -1)
    magnitudes = _magnitudes(kernel)
    if magnitudes is None or not _is_sign(layer.input_quantizer):
        return None
    units = kernel.shape[-1]
    convolution = op.BinaryConvolution(
        call=context.numbers[id(call)],
        signs=np.where(kernel < 0, -1.0, 1.0).astype(np.float32),
        rows=np.arange(inputs)[np.newaxis],
        filters=np.arange(units),
        strides=(1, 1),
        dilations=(1, 1),
        padding=((0, 0), (0, 0)),
        pad_value=1.0,
    )
    scale, bias = _scale_and_bias(layer, units)
    return [
        ("pixel", op.Reshape((1, 1, inputs)), (1, 1, inputs)),
        ("sign", op.Sign(), (1, 1, inputs)),
        ("conv", convolution, (1, 1, units)),
        ("scale", op.Affine(magnitudes * scale, bias), (1, 1, units)),
        ("flat", op.Reshape((units,)), None),
        *_activation(layer),
    ]


@rule(layers.BatchNormalization)
def _batch_normalization(call: Call, context: Context) -> list[Step] | None:
    layer, shape = call.layer, context.input_shape(call)
    if list(layer.axis) not in ([-1], [len(shape)]):
        return None
    ones, zeros = np.ones(shape[-1]), np.zeros(shape[-1])
    gamma = _numbers(layer.gamma) if layer.scale else ones
    beta = _numbers(layer.beta) if layer.center else zeros
    scale = gamma / np.sqrt(_numbers(layer.moving_variance) + layer.epsilon)
    return [("affine", op.Affine(scale, beta - scale * _numbers(layer.moving_mean)), None)]


@rule(layers.Add)
def _add(call: Call, context: Context) -> list[Step] | None:
    shapes = {context.reference.shape(tensor) for tensor in call.inputs}
    return [("add", op.Add(), None)] if len(shapes) == 1 and len(call.inputs) > 1 else None


@rule(layers.Concatenate)
def _concatenate(call: Call, context: Context) -> list[Step] | None:
    is_last = call.layer.axis in (-1, len(context.input_shape(call)))
    return [("concat", op.Concatenate(), None)] if is_last else None


@rule(layers.PReLU)
def _prelu(call: Call, context: Context) -> list[Step] | None:
    if call.layer.shared_axes != [1, 2]:
        return None
    return [("prelu", op.PReLU(_numbers(call.layer.alpha).ravel()), None)]


@rule(layers.Activation, layers.ReLU)
def _activation_layer(call: Call, context: Context) -> list[Step] | None:
    if isinstance(call.layer, layers.Activation):
        return _activation(call.layer)
    return None


@rule(layers.MaxPooling2D)
def _max_pool(call: Call, context: Context) -> list[Step] | None:
    return _pool(call, "max")


@rule(layers.AveragePooling2D)
def _average_pool(call: Call, context: Context) -> list[Step] | None:
    return _pool(call, "mean")


@rule(layers.GlobalAveragePooling2D)
def _global_mean(call: Call, context: Context) -> list[Step] | None:
    plain = call.layer.data_format == "channels_last" and not call.layer.keepdims
    return [("mean", op.GlobalMean(), None)] if plain else None


@rule(layers.Flatten)
def _flatten(call: Call, context: Context) -> list[Step] | None:
    if call.layer.data_format != "channels_last":
        return None
    return [("flatten", op.Reshape(context.reference.shape(call.outputs[0])), None)]


def _pool(call: Call, kind: str) -> list[Step] | None:
    layer = call.layer
    if layer.data_format != "channels_last":
        return None
    return [("pool", op.Pool(kind, tuple(layer.pool_size), tuple(layer.strides), layer.padding), None)]


def _binarizes_input(layer: Any) -> bool:
    return getattr(layer, "input_quantizer", None) is not None


def _activation(layer: Any) -> list[Step]:
    is_linear = layer.activation in (None, tf.keras.activations.linear)
    return [] if is_linear else [("activation", op.Function(layer.activation), None)]


def _scale_and_bias(layer: Any, filters: int) -> tuple[np.ndarray, np.ndarray]:
    """What a layer multiplies its products with and adds to them."""
    scale = layer.output_scale() if isinstance(layer, BinaryConv2D | BinaryDense) else None
    ones = np.ones(filters)
    return (
        ones if scale is None else ones * _numbers(scale),
        _numbers(layer.bias) if layer.use_bias else np.zeros(filters),
    )


def _magnitudes(kernel: np.ndarray) -> np.ndarray | None:
    """The s of a kernel that is ±s with one s per filter; None for others."""
    magnitudes = np.abs(kernel.astype(np.float64)).reshape(-1, kernel.shape[-1])
    largest, smallest = magnitudes.max(0), magnitudes.min(0)
    return largest if np.all(largest - smallest <= 1e-6 * largest) else None


# Both signs, zeros, numbers that underflow, and more of one sign than of the other.
_PROBE = np.array([[-3.0, -1.0, -0.5, -1e-30, -0.0, 0.0, 1e-30, 0.2, 0.7, 1.0, 2.0, 50.0]], np.float32)


def _is_sign(quantizer: Any) -> bool:
    """Whether a quantizer is sign(x) elementwise, sign(0) = +1, as the graph's operation is."""
    try:
        found = np.asarray(quantizer(tf.constant(_PROBE.reshape(1, 1, 1, -1)))).reshape(_PROBE.shape)
    except Exception:
        return False
    return bool(np.array_equal(found, np.where(_PROBE >= 0, 1.0, -1.0)))


Sides = tuple[tuple[int, int], tuple[int, int]]


def _padding(layer: Any, shape: op.Shape) -> Sides:
    """Rows above and below, columns left and right, as TensorFlow's SAME puts them."""
    if layer.padding == "valid":
        return ((0, 0), (0, 0))
    sides = []
    for size, kernel, stride, dilation in zip(
        shape, layer.kernel_size, layer.strides, layer.dilation_rate, strict=False
    ):
        reach = (kernel - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def _pads(padding: Sides) -> bool:
    return any(any(sides) for sides in padding)


def _numbers(variable: Any) -> np.ndarray:
    return np.asarray(variable, np.float64)
