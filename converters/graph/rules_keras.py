"""Rules of Keras's own layers."""

import numpy as np
import tensorflow as tf

from kbnn.activations import HardTanh
from kbnn.converters.graph import operations as op
from kbnn.converters.graph.rules import Context, Step, activation, clips, leaky, numbers, rule
from kbnn.converters.graph.trace import Call

layers = tf.keras.layers


@rule(
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.RandomContrast,
    layers.RandomBrightness,
    layers.RandomHeight,
    layers.RandomWidth,
)
def _nothing(call: Call, context: Context) -> list[Step]:
    """Layers that do nothing at inference, such as augmentation."""
    return []


@rule(layers.RandomCrop)
def _random_crop(call: Call, context: Context) -> list[Step]:
    """The largest centre with the aspect ratio of the target size, resized to that, as Keras crops at inference."""
    height, width, channels = context.input_shape(call)
    target = (call.layer.height, call.layer.width)
    rows = min(height, int(np.float32(width * target[0]) / np.float32(target[1])))
    columns = min(width, int(np.float32(height * target[1]) / np.float32(target[0])))
    top, left = (height - rows) // 2, (width - columns) // 2
    window = op.Window(top, left, rows, columns)
    return [("window", window, (rows, columns, channels)), ("resize", op.Resize(target), (*target, channels))]


@rule(layers.Rescaling)
def _rescaling(call: Call, context: Context) -> list[Step] | None:
    """x·scale + offset."""
    shape = context.input_shape(call)
    if np.size(call.layer.scale) > 1 or np.size(call.layer.offset) > 1:
        return None
    ones = np.ones(shape[-1])
    return [("scale", op.Affine(ones * call.layer.scale, ones * call.layer.offset), None)]


@rule(layers.ZeroPadding2D)
def _zero_padding(call: Call, context: Context) -> list[Step] | None:
    if call.layer.data_format != "channels_last":
        return None
    rows, columns = call.layer.padding
    return [("pad", op.Pad((tuple(rows), tuple(columns)), 0.0), None)]


@rule(
    layers.BatchNormalization,
    layers.experimental.SyncBatchNormalization,
    tf.compat.v1.keras.layers.BatchNormalization,
)
def _batch_normalization(call: Call, context: Context) -> list[Step] | None:
    layer, shape = call.layer, context.input_shape(call)
    if list(layer.axis) not in ([-1], [len(shape)]):
        return None
    ones, zeros = np.ones(shape[-1]), np.zeros(shape[-1])
    gamma = numbers(layer.gamma) if layer.scale else ones
    beta = numbers(layer.beta) if layer.center else zeros
    scale = gamma / np.sqrt(numbers(layer.moving_variance) + layer.epsilon)
    return [("affine", op.Affine(scale, beta - scale * numbers(layer.moving_mean)), None)]


@rule(layers.Add)
def _add(call: Call, context: Context) -> list[Step] | None:
    shapes = {context.reference.shape(tensor) for tensor in call.inputs}
    return [("add", op.Add(), None)] if len(shapes) == 1 and len(call.inputs) > 1 else None


@rule(layers.Average)
def _average(call: Call, context: Context) -> list[Step] | None:
    """The sum divided by the number of inputs."""
    steps, shape = _add(call, context), context.input_shape(call)
    if steps is None:
        return None
    share = np.full(shape[-1], 1.0 / len(call.inputs))
    return [*steps, ("share", op.Affine(share, np.zeros(shape[-1])), None)]


@rule(layers.Subtract)
def _subtract(call: Call, context: Context) -> list[Step] | None:
    shapes = {context.reference.shape(tensor) for tensor in call.inputs}
    return [("subtract", op.Subtract(), None)] if len(shapes) == 1 else None


@rule(layers.Concatenate)
def _concatenate(call: Call, context: Context) -> list[Step] | None:
    is_last = call.layer.axis in (-1, len(context.input_shape(call)))
    return [("concat", op.Concatenate(), None)] if is_last else None


@rule(layers.PReLU)
def _prelu(call: Call, context: Context) -> list[Step] | None:
    slopes = numbers(call.layer.alpha).ravel()
    if call.layer.shared_axes != [1, 2] or len(slopes) != context.input_shape(call)[-1]:
        return None
    return [("prelu", op.PReLU(slopes), None)]


@rule(layers.Activation, HardTanh)
def _activation_layer(call: Call, context: Context) -> list[Step] | None:
    shape = context.input_shape(call)
    return activation(call.layer, shape[-1]) if shape else None


@rule(layers.ReLU)
def _relu(call: Call, context: Context) -> list[Step] | None:
    """max(x, 0) up to a largest value, or a leaky ReLU."""
    layer, shape = call.layer, context.input_shape(call)
    largest, slope = layer.max_value, float(layer.negative_slope or 0.0)
    if float(layer.threshold or 0.0) != 0.0 or not shape or (slope != 0.0 and largest is not None):
        return None
    if slope != 0.0:
        return [("leaky", leaky(slope, shape[-1]), None)]
    bounds = clips(0.0, float("inf") if largest is None else float(largest))
    return [(suffix, op.Clip(*pair), None) for suffix, pair in zip(("relu", "largest"), bounds, strict=False)]


@rule(layers.LeakyReLU)
def _leaky_relu(call: Call, context: Context) -> list[Step] | None:
    shape = context.input_shape(call)
    return [("leaky", leaky(float(call.layer.alpha), shape[-1]), None)] if shape else None


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
