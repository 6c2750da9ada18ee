"""Observes a network: its binary layers, their kernels, and the inputs of their signs."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kbnn import structure
from kbnn.datasets import Dataset
from kbnn.errors import UsageError
from kbnn.layer_calls import Arguments, Keywords, watched
from kbnn.layers import BatchMedian, ChannelShift
from kbnn.quantizers import AdaptiveSign

SAMPLES = 256
# The attribute of a tensor that a layer with a threshold computed: see `_Before`.
_BEFORE = "_kbnn_before"


@dataclass(frozen=True)
class Observation:
    """One binary layer: its kernel as latent weights and as ±1, and its activations before binarization.

    If a batch median or a channel shift computes the layer's input, `activations` are that layer's input. `threshold`
    is what the network compares them with: a number per channel, or a single one.
    """

    name: str
    latent: np.ndarray
    binary: np.ndarray
    scale: np.ndarray | None
    activations: np.ndarray
    signs: np.ndarray
    threshold: np.ndarray

    @property
    def filters(self) -> np.ndarray:
        """The binary kernel as one column per filter, `(n, Cout)`."""
        return self.binary.reshape(-1, self.binary.shape[-1])


def observe(model: tf.keras.Model, images: np.ndarray) -> list[Observation]:
    """Runs images through a network and observes every binary layer that it calls; of several calls, the last one.

    Args:
        model: any Keras model with binary layers: functional, sequential, nested or subclassed.
        images: network inputs `(N, H, W, C)`, processed as one batch.

    Raises:
        UsageError: the model has no binary layer, or calls none, or it has several inputs.
    """
    layers = structure.require_binary_layers(model)
    given = len(model.inputs or ())
    if given > 1:
        raise UsageError(
            f"model '{model.name}' has {given} inputs: only networks with one input are analyzed, cut out a part with "
            f"tf.keras.Model"
        )
    inputs = _Inputs()
    shifting = [*structure.layers_of(model, BatchMedian), *structure.layers_of(model, ChannelShift)]
    with watched([*layers, *shifting], inputs):
        model(images, training=False)
    named = zip(layers, structure.names_of(layers), strict=True)
    called = [_observation(layer, name, inputs) for layer, name in named if id(layer) in inputs.of]
    if not called:
        raise UsageError(f"model '{model.name}' calls none of its {len(layers)} binary layers at inference")
    return called


def _observation(layer: tf.keras.layers.Layer, name: str, inputs: "_Inputs") -> Observation:
    read, before = inputs.of[id(layer)], inputs.before[id(layer)]
    if isinstance(layer.input_quantizer, AdaptiveSign):
        activations, threshold = read, np.asarray(layer.input_quantizer.beta, np.float32)
    elif before is not None:
        activations, threshold = before
    else:
        activations, threshold = read, np.zeros((), np.float32)
    return Observation(
        name=name,
        latent=structure.latent_kernel(layer),
        binary=np.where(structure.binary_signs(layer), 1, -1).astype(np.float32),
        scale=structure.learned_scale(layer),
        activations=activations,
        signs=np.where(structure.signs(_quantized(layer, read), layer.input_quantizer), 1, -1).astype(np.int8),
        threshold=threshold,
    )


def _quantized(layer: tf.keras.layers.Layer, before_sign: np.ndarray) -> np.ndarray:
    return np.asarray(structure.quantize(layer.input_quantizer, tf.constant(before_sign)), np.float32)


class _Before(NamedTuple):
    """The input of a batch median or a channel shift, and its thresholds: the output has the sign of the difference."""

    activations: np.ndarray
    threshold: np.ndarray


class _Inputs:
    """Records the inputs `of` layers, in float32, and what comes `before` them, by the `id` of a layer.

    Layers of nested models may share a name.
    """

    def __init__(self) -> None:
        self.of: dict[int, np.ndarray] = {}
        self.before: dict[int, _Before | None] = {}

    def enter(self, layer: tf.keras.layers.Layer, args: Arguments, kwargs: Keywords) -> tuple[Arguments, Keywords]:
        self.of[id(layer)] = np.asarray(args[0]).astype(np.float32)
        self.before[id(layer)] = getattr(args[0], _BEFORE, None)
        return args, kwargs

    def leave(self, layer: tf.keras.layers.Layer, outputs: object) -> object:
        if isinstance(layer, BatchMedian | ChannelShift):
            threshold = layer.threshold() if isinstance(layer, BatchMedian) else -layer.bias
            setattr(outputs, _BEFORE, _Before(self.of[id(layer)], np.asarray(threshold, np.float32)))
        return outputs


def images_of(data: Dataset | np.ndarray, samples: int = SAMPLES) -> np.ndarray:
    """Up to `samples` network inputs, from an array or from a data set's validation (or else training) images."""
    if isinstance(data, np.ndarray):
        return data[:samples]
    split = data.validation if data.validation.size else data.train
    return data.inputs(split, samples)
