"""Observes a network: its binary layers, their kernels, and the inputs of their signs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kbnn import structure
from kbnn.layer_calls import watched

SAMPLES = 256
# A batch median in front of a binary layer is named after it.
_MEDIAN = "_median"


@dataclass(frozen=True)
class Binarization:
    """How a layer's activations become two levels: a threshold, per channel or one, and the two distances from it."""

    threshold: np.ndarray
    scales: tuple[float, float] | None


@dataclass(frozen=True)
class Observation:
    """One binary layer: its kernel as latent weights and as ±1, and its activations before they are binarized."""

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


def observe(model: Any, images: np.ndarray) -> list[Observation]:
    """Runs images through a network and observes every binary layer.

    Args:
        model: any Keras model with binary layers: functional, sequential, nested or subclassed.
        images: network inputs `(N, H, W, C)`; they pass in one batch.

    Raises:
        UsageError: the model has no binary layer.
    """
    layers = structure.require_binary_layers(model)
    medians = {layer.name: layer for layer in structure.layers(model) if layer.name.endswith(_MEDIAN)}
    inputs = _Inputs()
    with watched([*layers, *medians.values()], inputs):
        model(images, training=False)
    return [_observation(layer, medians.get(layer.name + _MEDIAN), inputs.by_name) for layer in layers]


def _observation(layer: Any, median: Any, inputs: dict[str, np.ndarray]) -> Observation:
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


def _quantized(layer: Any, before_sign: np.ndarray) -> np.ndarray:
    return np.asarray(structure.quantize(layer.input_quantizer, tf.constant(before_sign)), np.float32)


def _of_median(layer: Any) -> Binarization:
    """The threshold and scales that a batch median applies at inference."""
    threshold = np.asarray(layer.moving_median, np.float32) - np.asarray(layer.beta, np.float32)
    return Binarization(threshold, (float(layer.moving_positive_rms), float(layer.moving_negative_rms)))


class _Inputs:
    """Keeps what each layer is called with, float32, by the layer's name."""

    def __init__(self) -> None:
        self.by_name: dict[str, np.ndarray] = {}

    def enter(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        self.by_name[layer.name] = np.asarray(args[0]).astype(np.float32)
        return args, kwargs

    def leave(self, layer: Any, outputs: Any) -> Any:
        return outputs


def images_of(data: Any, samples: int = SAMPLES) -> np.ndarray:
    """Up to `samples` network inputs: of an array, or of a data set's held-out images (its training ones if none)."""
    if isinstance(data, np.ndarray):
        return data[:samples]
    split = data.validation if data.validation.size else data.train
    return data.inputs(split, samples)
