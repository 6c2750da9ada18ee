"""Rules of kbnn's own layers."""

from dataclasses import replace

import numpy as np
import tensorflow as tf

from kbnn import layers
from kbnn.converters.graph import operations as op
from kbnn.converters.graph.rules import Context, Step, numbers, rule, rule_for
from kbnn.converters.graph.trace import Call


@rule(layers.ChannelShift)
def _channel_shift(call: Call, context: Context) -> list[Step]:
    """x + b_c."""
    return [("shift", op.Affine.shift(numbers(call.layer.bias)), None)]


@rule(layers.BatchMedian)
def _batch_median(call: Call, context: Context) -> list[Step]:
    """m = A - ω + β_c; γ_c·m/s₊ where m >= 0, γ_c·m/s₋ elsewhere: a shift, a PReLU and a scale."""
    layer, ones = call.layer, np.ones(context.input_shape(call)[-1])
    positive, negative = numbers(layer.moving_positive_rms), numbers(layer.moving_negative_rms)
    return [
        ("shift", op.Affine.shift(-numbers(layer.threshold())), None),
        ("sides", op.PReLU(positive / negative * ones), None),
        ("scale", op.Affine(numbers(layer.gamma) / positive * ones, 0.0 * ones), None),
    ]


@rule(layers.PReLU)
def _prelu(call: Call, context: Context) -> list[Step]:
    """PReLU(x)."""
    return [("prelu", op.PReLU(numbers(call.layer.slope)), None)]


@rule(layers.Maxout)
def _maxout(call: Call, context: Context) -> list[Step]:
    """γ⁺·PReLU(x) with slope γ⁻/γ⁺; mirrored, -γ⁻·PReLU(-x) with slope γ⁺/γ⁻, where |γ⁻| is the larger."""
    positive, negative = numbers(call.layer.positive), numbers(call.layer.negative)
    mirrored = np.abs(negative) > np.abs(positive)
    side = np.where(mirrored, -1.0, 1.0)
    large, small = np.where(mirrored, negative, positive), np.where(mirrored, positive, negative)
    slope = np.divide(small, large, out=np.zeros_like(large), where=large != 0)
    zeros = np.zeros(len(large))
    return [
        *([("side", op.Affine(side, zeros), None)] if mirrored.any() else []),
        ("prelu", op.PReLU(slope), None),
        ("scale", op.Affine(side * large, zeros), None),
    ]


@rule(layers.BiasedPReLU)
def _biased_prelu(call: Call, context: Context) -> list[Step]:
    """PReLU(x - γ)."""
    return _biased(call.layer, context.input_shape(call)[-1])


@rule(layers.RPReLU)
def _rprelu(call: Call, context: Context) -> list[Step]:
    """PReLU(x - γ_c) + ζ_c."""
    return [
        *_biased(call.layer, context.input_shape(call)[-1]),
        ("zeta", op.Affine.shift(numbers(call.layer.zeta)), None),
    ]


@rule(layers.GroupNormalization)
def _group_normalization(call: Call, context: Context) -> list[Step]:
    """(x - mean)/√(var + ε) of each sample's groups, and an affine map."""
    layer, channels = call.layer, context.input_shape(call)[-1]
    scale = numbers(layer.gamma) if layer.affine else np.ones(channels)
    offset = numbers(layer.beta) if layer.affine else np.zeros(channels)
    return [("normalized", op.Normalize(layer.groups, layer.epsilon, scale, offset), None)]


@rule(layers.GroupAwareNormalization)
def _group_aware_normalization(call: Call, context: Context) -> list[Step] | None:
    """Layer normalization, an activation and batch normalization, each by its own rule."""
    layer = call.layer
    parts = [layer.layer_normalization, layer.activation, layer.batch_normalization]
    steps: list[Step] = []
    for part in (part for part in parts if part is not None):
        found = rule_for(part)
        inner = found(_call_of(part, call), context) if found is not None else None
        if inner is None:
            return None
        steps += inner
    return steps


@rule(layers.ChannelShuffle)
def _channel_shuffle(call: Call, context: Context) -> list[Step] | None:
    is_image = len(context.input_shape(call)) == 3
    return [("shuffle", op.Shuffle(call.layer.groups), None)] if is_image else None


@rule(layers.ZeroPadChannels)
def _zero_pad_channels(call: Call, context: Context) -> list[Step] | None:
    inputs, outputs = context.input_shape(call), context.reference.shape(call.outputs[0])
    missing = outputs[-1] - inputs[-1]
    before = missing // 2 if call.layer.side == "both" else 0
    return [("pad", op.PadChannels(before, missing - before), None)] if len(inputs) == 3 else None


def _biased(layer: layers.BiasedPReLU, channels: int) -> list[Step]:
    """A shift and a PReLU; groups of adjacent channels may share their parameters."""
    repeats = channels // len(numbers(layer.gamma))
    return [
        ("gamma", op.Affine.shift(-np.repeat(numbers(layer.gamma), repeats)), None),
        ("prelu", op.PReLU(np.repeat(numbers(layer.slope), repeats)), None),
    ]


def _call_of(layer: tf.keras.layers.Layer, around: Call) -> Call:
    """The call of a layer within another one; all of these layers keep the shape."""
    return replace(around, layer=layer, children=())
