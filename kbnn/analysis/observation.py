"""Looks into a network: its binary layers, their kernels, and what enters their signs."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kbnn.analysis.measures import batch_median
from kbnn.errors import UsageError

Call = Callable[..., Any]
SAMPLES = 256
# A batch median in front of a binary layer is named after it.
_MEDIAN = "_median"


@dataclass(frozen=True)
class Binarization:
    """How a layer's activations become two levels: threshold, per channel or one, and the two distances from it."""

    threshold: np.ndarray
    scales: tuple[float, float] | None


@dataclass(frozen=True)
class Observation:
    """One binary layer: its kernels, and its activations for some images before anything binarizes them."""

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


def binary_layers(model: Any) -> list[Any]:
    """The layers that multiply binarized activations, in the order of the model: ours and Larq's.

    Raises:
        UsageError: there are none.
    """
    found = [layer for layer in _layers(model) if _is_binary(layer)]
    if not found:
        raise UsageError(
            f"model '{model.name}' has no binary layer to analyse (none with an input quantizer and a kernel): "
            f"give a network trained with a binary method"
        )
    return found


def is_binary(model: Any) -> bool:
    """Whether a model has binary layers."""
    return any(_is_binary(layer) for layer in _layers(model))


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=False, recursive=True))


def _is_binary(layer: Any) -> bool:
    return getattr(layer, "input_quantizer", None) is not None and getattr(layer, "kernel", None) is not None


def latent_kernel(layer: Any) -> np.ndarray:
    """The trained real-valued kernel, float32."""
    return np.asarray(getattr(layer.kernel, "latent_variable", layer.kernel), np.float32)


def binary_kernel(layer: Any) -> np.ndarray:
    """What the layer's kernel quantizer makes of the latent kernel, float32; a kernel without one is taken as it is."""
    latent = latent_kernel(layer)
    return latent if layer.kernel_quantizer is None else np.asarray(layer.kernel_quantizer(latent), np.float32)


def scale(layer: Any) -> np.ndarray | None:
    """The layer's learned scale α per output channel, if it has one."""
    alpha = getattr(layer, "alpha", None)
    return None if alpha is None else np.asarray(alpha, np.float32)


def observe(model: Any, images: np.ndarray) -> list[Observation]:
    """Runs images through a network and looks at every binary layer.

    Args:
        model: any Keras model with binary layers: functional, sequential, nested or subclassed.
        images: network inputs `(N, H, W, C)`; they pass in one batch.

    Raises:
        UsageError: the model has no binary layer.
    """
    layers = binary_layers(model)
    medians = {layer.name: layer for layer in _layers(model) if layer.name.endswith(_MEDIAN)}
    inputs: dict[str, np.ndarray] = {}
    with _recording([*layers, *medians.values()], inputs):
        model(images, training=False)
    return [_observation(layer, medians.get(layer.name + _MEDIAN), inputs) for layer in layers]


def _observation(layer: Any, median: Any, inputs: dict[str, np.ndarray]) -> Observation:
    before_sign = inputs[layer.name]
    return Observation(
        name=layer.name,
        latent=latent_kernel(layer),
        binary=binary_kernel(layer),
        scale=scale(layer),
        activations=before_sign if median is None else inputs[median.name],
        signs=np.where(np.asarray(layer.input_quantizer(before_sign), np.float32) >= 0, 1, -1).astype(np.int8),
        binarization=Binarization(np.zeros(()), None) if median is None else _of_median(median),
    )


def _of_median(layer: Any) -> Binarization:
    """The threshold and scales that a batch median applies at inference."""
    threshold = np.asarray(layer.moving_median, np.float32) - np.asarray(layer.beta, np.float32)
    return Binarization(threshold, (float(layer.moving_positive_rms), float(layer.moving_negative_rms)))


def batch_median_of(activations: np.ndarray) -> Binarization:
    """The binarization that a batch median would choose for these activations."""
    omega, scales = batch_median(activations)
    return Binarization(np.asarray(omega), scales)


@contextlib.contextmanager
def _recording(layers: Sequence[Any], inputs: dict[str, np.ndarray]) -> Iterator[None]:
    """Keeps what each layer is called with; unlike `layer.input` it works for subclassed and nested models too."""
    for layer in layers:
        layer.call = functools.partial(_record, layer.name, layer.call, inputs)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def _record(name: str, call: Call, inputs: dict[str, np.ndarray], x: Any, *rest: Any, **kwargs: Any) -> Any:
    inputs[name] = np.asarray(x).astype(np.float32)
    return call(x, *rest, **kwargs)


def images_of(data: Any, samples: int = SAMPLES) -> np.ndarray:
    """Up to `samples` network inputs: of an array, or of a data set's held-out images (its training ones if none)."""
    if isinstance(data, np.ndarray):
        return data[:samples]
    split = data.validation if data.validation.size else data.train
    return data.inputs(split, samples)
