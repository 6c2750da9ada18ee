"""The structure of a model: its layers at any depth, which of them are binary, and their kernels.

Used by callbacks, diagnostics, penalties, accounting and the converter.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kbnn import compiled
from kbnn.errors import UsageError
from kbnn.quantizers.registry import levels_of

Quantizer = Callable[[tf.Tensor], tf.Tensor]
Kind = TypeVar("Kind")

# The base of Keras's batch normalizations: today's, the former `SyncBatchNormalization`, and TensorFlow 1's.
BatchNormalization: type[tf.keras.layers.Layer] = tf.keras.layers.BatchNormalization.__base__

REAL_BITS = 32
# The attributes of kernels in layers of kbnn, Larq and Keras, and of their quantizers.
_KERNELS = (
    ("kernel", "kernel_quantizer"),
    ("depthwise_kernel", "depthwise_quantizer"),
    ("pointwise_kernel", "pointwise_quantizer"),
)


def check_single(model: tf.keras.Model) -> None:
    """Raises UsageError unless a model has one input and one output."""
    inputs, outputs = (len(tf.nest.flatten(shapes)) for shapes in (model.inputs or (), model.outputs or ()))
    if inputs > 1 or outputs > 1:
        raise UsageError(
            f"model '{model.name}' has {inputs} input{'s' * (inputs != 1)} and {outputs} output{'s' * (outputs != 1)}, "
            f"expected one of each: choose an output with tf.keras.Model(model.input, model.outputs[0]); several "
            f"inputs work only with kbnn.converters.convert and verify, images={{name: array}}"
        )


def layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """All layers of a model, in order: nested models and their layers, wrapped layers, and layers within layers.

    Quantizers count as layers within the layer that uses them. These are the layers that Keras tracks and trains; see
    `reachable_layers` for those whose calls are to be watched.

    Raises:
        UsageError: it is not a Keras model.
    """
    if not isinstance(model, tf.keras.layers.Layer):
        raise UsageError(
            f"not a Keras model: received {type(model).__name__}; load a file with kbnn.loading.load_model"
        )
    found = model._flatten_layers(include_self=False, recursive=True)
    return list({id(layer): layer for layer in found}.values())


def reachable_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """A model and every layer that may be called within it.

    Besides `layers`, these are layers that Keras does not list: those in a plain `tf.Module`, the layer that
    `Bidirectional` copies, and metrics. The search through all attributes takes up to hundreds of milliseconds, so use
    `layers` unless a missed call would be an error.
    """
    return [model, *(module for module in model.submodules if isinstance(module, tf.keras.layers.Layer))]


def layers_of(model: tf.keras.Model, kind: type[Kind]) -> list[Kind]:
    """The layers and quantizers of a class, at any depth."""
    return [layer for layer in layers(model) if isinstance(layer, kind)]


def flat_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """The layers of a model and of its nested models, without the nested models themselves and layers within layers."""
    return [
        inner
        for layer in model.layers
        for inner in (flat_layers(layer) if isinstance(layer, tf.keras.Model) else [layer])
    ]


def contains(layer: tf.keras.layers.Layer, kind: type) -> bool:
    """Whether a layer is an instance of a class, or contains one."""
    return any(isinstance(part, kind) for part in layer._flatten_layers())


def bits(quantizer: object) -> int:
    """The number of bits of a quantizer's result: 32 without a quantizer, 1 if it declares no precision."""
    if quantizer is None:
        return REAL_BITS
    return int(getattr(quantizer, "precision", 1) or REAL_BITS)


def binarizes_input(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer binarizes its input."""
    return bits(getattr(layer, "input_quantizer", None)) == 1


def has_binary_kernel(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer binarizes its kernel; of two kernels, at least one, and the other one if it has a quantizer."""
    quantizers = [getattr(layer, name) for _, name in _KERNELS if getattr(layer, name, None) is not None]
    return bool(quantizers) and all(bits(quantizer) == 1 for quantizer in quantizers)


def is_binary(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer is 1-bit: it binarizes its input and its kernel."""
    return binarizes_input(layer) and has_binary_kernel(layer)


def binary_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """The 1-bit layers of a model, kbnn's and Larq's, in order."""
    return [layer for layer in layers(model) if is_binary(layer)]


def names_of(layers: Iterable[tf.keras.layers.Layer]) -> list[str]:
    """A name for each layer: its own, or with `_2`, `_3`, … if layers of nested models share it."""
    names: list[str] = []
    for layer in layers:
        numbered = (f"{layer.name}_{k}" for k in itertools.count(2))
        names.append(next(name for name in itertools.chain([layer.name], numbered) if name not in names))
    return names


def require_binary_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """The 1-bit layers of a model, like `binary_layers`.

    Raises:
        UsageError: there are none.
    """
    found = binary_layers(model)
    if not found:
        raise UsageError(
            f"model '{model.name}' has no binary layer (none binarizes both its input and its kernel): give a network "
            f"that was built with a binary method"
        )
    return found


def kernels(layer: tf.keras.layers.Layer) -> list[tuple[tf.Variable, Quantizer | None]]:
    """The latent float32 kernels of a layer, each with its quantizer, or None if it is real-valued."""
    found = [(getattr(layer, kernel, None), getattr(layer, quantizer, None)) for kernel, quantizer in _KERNELS]
    return [(latent(kernel), quantizer) for kernel, quantizer in found if kernel is not None]


def latent(kernel: tf.Variable) -> tf.Variable:
    """The trained variable behind a kernel that Larq or a precision policy wraps."""
    return getattr(kernel, "latent_variable", kernel)


def binary_kernels(layer: tf.keras.layers.Layer) -> list[tuple[tf.Variable, Quantizer]]:
    """The latent kernels that a layer binarizes to 1 bit, each with its quantizer."""
    return [
        (kernel, quantizer) for kernel, quantizer in kernels(layer) if quantizer is not None and bits(quantizer) == 1
    ]


def latent_kernel(layer: tf.keras.layers.Layer) -> np.ndarray:
    """The latent kernel `(..., Cin, Cout)` of a layer, in float32; the larger one if it has two."""
    return _filters_last(layer, _main_kernel(layer)[0].numpy())


def binary_kernel(layer: tf.keras.layers.Layer) -> np.ndarray:
    """The quantized `latent_kernel`, in float32; a kernel without a quantizer is returned unchanged."""
    kernel, quantizer = _main_kernel(layer)
    return _filters_last(layer, quantize(quantizer, tf.convert_to_tensor(kernel)).numpy())


def _main_kernel(layer: tf.keras.layers.Layer) -> tuple[tf.Variable, Quantizer | None]:
    return max(kernels(layer), key=lambda found: found[0].shape.num_elements())


def _filters_last(layer: tf.keras.layers.Layer, kernel: np.ndarray) -> np.ndarray:
    """Reshapes a depthwise kernel `(h, w, C, multiplier)` to `(h, w, 1, C·multiplier)`; others stay unchanged."""
    is_depthwise = isinstance(layer, tf.keras.layers.DepthwiseConv2D)
    return np.asarray(kernel.reshape(*kernel.shape[:2], 1, -1) if is_depthwise else kernel, np.float32)


def signs(values: npt.ArrayLike, quantizer: object) -> np.ndarray:
    """A mask of the upper one of the two values that a quantizer returned.

    The threshold is zero if the levels are symmetric, such as ±1 up to a factor; otherwise it is the middle between the
    smallest and the largest value of each channel.
    """
    array = np.asarray(values)
    levels = levels_of(quantizer)
    if levels is not None and len(levels) == 2 and levels[0] == -levels[1]:
        return array >= 0
    axes = tuple(range(array.ndim - 1))
    lowest, highest = array.min(axes), array.max(axes)
    return np.where(lowest == highest, array >= 0, array >= lowest / 2 + highest / 2)


def quantize(quantizer: Quantizer | None, x: tf.Tensor) -> tf.Tensor:
    """Applies a quantizer in the precision of `x`; Keras would first cast `x` to the quantizer's own precision.

    A quantizer changes neither shape nor precision, so it is left out while Keras infers the output shape of a layer:
    networks build faster (`benchmarks/building.py`).
    """
    if quantizer is None or compiled.inferring_shapes():
        return x
    return quantizer.call(x) if isinstance(quantizer, tf.keras.layers.Layer) else quantizer(x)


def binary_signs(layer: tf.keras.layers.Layer) -> np.ndarray:
    """A mask of the weights of `latent_kernel` that become the upper one of the two binary values."""
    return signs(binary_kernel(layer), _main_kernel(layer)[1])


def learned_scale(layer: tf.keras.layers.Layer) -> np.ndarray | None:
    """A layer's learned scale α, per output channel or a single one for the layer; None if it has none."""
    alpha = getattr(layer, "alpha", None)
    return None if alpha is None else np.asarray(alpha, np.float32)
