"""Observes a network: its binary layers, their kernels, and the inputs of their signs."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn import structure
from kbnn.datasets import Dataset
from kbnn.layer_calls import Arguments, Keywords, watched

SAMPLES = 256
# The name of a batch median in front of a binary layer is the layer's name with this suffix.
_MEDIAN = "_median"


@dataclass(frozen=True)
class Binarization:
    """How a layer binarizes activations: a threshold, per channel or a single one, and the distances of both levels."""

    threshold: np.ndarray
    scales: tuple[float, float] | None


@dataclass(frozen=True)
class Observation:
    """One binary layer: its kernel as latent weights and as ±1, and its activations before binarization."""

    name: str
    latent: np.ndarray
    binary: np.ndarray
    scale: np.ndarray | None
    activations: np.ndarray
    signs: np.ndarray
    binarization: Binarization

    @property
    def filters(self) -> np.ndarray:
        """The binary kernel as one column per filter, `(n, Cout)`."""
        return self.binary.reshape(-1, self.binary.shape[-1])


def observe(model: tf.keras.Model, images: np.ndarray) -> list[Observation]:
    """Runs images through a network and observes every binary layer.

    Args:
        model: any Keras model with binary layers: functional, sequential, nested or subclassed.
        images: network inputs `(N, H, W, C)`, processed as one batch.

    Raises:
        UsageError: the model has no binary layer.
    """
    layers = structure.require_binary_layers(model)
    medians = {layer.name: layer for layer in structure.layers(model) if layer.name.endswith(_MEDIAN)}
    inputs = _Inputs()
    with watched([*layers, *medians.values()], inputs):
        model(images, training=False)
    return [_observation(layer, medians.get(layer.name + _MEDIAN), inputs.by_name) for layer in layers]


def _observation(
    layer: tf.keras.layers.Layer, median: tf.keras.layers.Layer | None, inputs: dict[str, np.ndarray]
) -> Observation:
    before_sign = inputs[layer.name]
    return Observation(
        name=layer.name,
        latent=structure.latent_kernel(layer),
        binary=np.where(structure.binary_signs(layer), 1, -1).astype(np.float32),
        scale=structure.learned_scale(layer),
        activations=before_sign if median is None else inputs[median.name],
        signs=np.where(structure.signs(_quantized(layer, before_sign), layer.input_quantizer), 1, -1).astype(np.int8),
        binarization=Binarization(np.zeros(()), None) if median is None else _of_median(median),
    )


def _quantized(layer: tf.keras.layers.Layer, before_sign: np.ndarray) -> np.ndarray:
    return np.asarray(structure.quantize(layer.input_quantizer, tf.constant(before_sign)), np.float32)


def _of_median(layer: tf.keras.layers.Layer) -> Binarization:
    """The threshold and scales that a batch median applies at inference."""
    threshold = np.asarray(layer.moving_median, np.float32) - np.asarray(layer.beta, np.float32)
    return Binarization(threshold, (float(layer.moving_positive_rms), float(layer.moving_negative_rms)))


class _Inputs:
    """Records the input of each layer, in float32, by the layer's name."""

    def __init__(self) -> None:
        self.by_name: dict[str, np.ndarray] = {}

    def enter(self, layer: tf.keras.layers.Layer, args: Arguments, kwargs: Keywords) -> tuple[Arguments, Keywords]:
        self.by_name[layer.name] = np.asarray(args[0]).astype(np.float32)
        return args, kwargs

    def leave(self, layer: tf.keras.layers.Layer, outputs: object) -> object:
        return outputs


def images_of(data: Dataset | np.ndarray, samples: int = SAMPLES) -> np.ndarray:
    """Up to `samples` network inputs, from an array or from a data set's validation (or else training) images."""
    if isinstance(data, np.ndarray):
        return data[:samples]
    split = data.validation if data.validation.size else data.train
    return data.inputs(split, samples)
