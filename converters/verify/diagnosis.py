"""Explains why a layer that is meant to be 1-bit did not become a binary convolution, and what to do about it."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from kbnn import structure
from kbnn.converters.graph.binary_layers import BinaryCall, binary_calls, levels
from kbnn.converters.graph.slices import sign_source
from kbnn.converters.graph.trace import LOOPS, Reference
from kbnn.converters.tflite.lce import CHANNELS_PER_WORD

# The converter's limits: smaller magnitudes count as zero, and the magnitudes in a filter may differ by this fraction.
_SMALLEST_SCALE = 1.2e-7
_SCALE_SPREAD = 0.005
_OUTPUT_TYPES = (tf.float32, tf.int32, tf.int64, tf.int8, tf.uint8, tf.bool)
# About the rounding error of a sum, as a fraction of the largest value.
_TIE = 1e-7


def diagnose(reference: Reference, binary: BinaryCall) -> str:
    """The reason and the fix, as one clause with a colon in between."""
    operation = reference.operation(reference.order[binary.convolutions[0]])
    if operation.type == "MatMul":
        return "LCE has no binary dense operator: use a 1x1 kbnn.layers.BinaryConv2D, or flatten its input"
    if operation.type != "Conv2D":
        return f"LCE has no binary {operation.type}: use kbnn.layers.BinaryConv2D, or leave the layer real-valued"
    if operation.get_attr("data_format") != b"NHWC":
        return "its data format is channels_first, which LCE does not have: build it with channels_last"
    kernel, source = _values(reference, binary)
    return (
        _by_values(binary, kernel, source)
        or _by_zero(reference, binary.call.inputs[0])
        or ("LCE does not recognize how its input is binarized: use a quantizer of kbnn or Larq, right before it")
    )


def _by_zero(reference: Reference, tensor: str) -> str | None:
    """Explains an input that is a sign as in LCE, except for the sign of 0."""
    for value in (0.0, -1.0):
        if sign_source(reference, tensor, value) is not None:
            return (
                f"its input is a sign with sign(0) = {value:.0f}, but in LCE sign(0) is 1: "
                f"use ste_sign, or tf.where(x >= 0, 1.0, -1.0)"
            )
    return None


def loops(reference: Reference) -> list[str]:
    """The names of the layers that are loops in the graph, such as recurrent layers."""
    found = reference.operations(reference.root, LOOPS)
    return list(dict.fromkeys(reference.layer_name(reference.order[loop.name]) for loop in found))


def unconvertible(reference: Reference) -> list[str]:
    """The layers that LCE's converter cannot read, each with the fix."""
    return [
        f"layer '{name}' is a loop, which LCE cannot convert: build it with unroll=True" for name in loops(reference)
    ]


def invalid_outputs(reference: Reference) -> list[str]:
    """The outputs that a file cannot return for each image, each with the fix."""
    types = {name: reference.tensor(tensor).dtype for name, tensor in reference.outputs.items()}
    return [
        f"output '{name}' of model '{reference.model.name}' has the type {dtype.name}, which LCE's interpreter cannot "
        f"return: cast it to float32"
        for name, dtype in types.items()
        if dtype not in _OUTPUT_TYPES
    ] + [
        f"output '{name}' of model '{reference.model.name}' is not computed for each image of a batch, its shape is "
        f"{tuple(reference.tensor(tensor).shape)}: leave it out of the model that you convert"
        for name, tensor in reference.outputs.items()
        if not reference.grows_with_batch(tensor)
    ]


def saved_quantized(model: tf.keras.Model) -> list[str]:
    """The layers whose latent weights are already quantized and would change again, each with the cause and the fix.

    Inside Larq's `quantized_scope`, the kernel of a layer is the quantized one, which is saved instead of the latent
    weights.
    """
    found = []
    for layer in structure.layers(model):
        for kernel, quantizer in structure.binary_kernels(layer):
            latent = kernel.numpy().reshape(-1, kernel.shape[-1])
            binary = np.asarray(structure.quantize(quantizer, tf.constant(kernel.numpy()))).reshape(latent.shape)
            change = _changed_again(latent, binary)
            if change is not None:
                found.append(
                    f"layer '{layer.name}' was saved inside Larq's quantized_scope: {change}: save the model outside "
                    f"of the scope"
                )
    return found


def _changed_again(latent: np.ndarray, binary: np.ndarray) -> str | None:
    """How a quantizer changes latent weights `(weights, filters)` that have two values per filter."""
    found, has_two = levels(latent), latent.min(0) < latent.max(0)
    # A filter with two weights always has at most two values.
    if found is None or len(latent) <= 2 or not has_two.any():
        return None
    centre, distance, _ = found
    if not np.any(centre):
        changed = np.count_nonzero((binary < 0) != (latent < 0))
        of = f"its latent weights are ±s, and its quantizer changes the sign of {changed} of {latent.size}"
        return of if changed else None
    moved = float(np.max(np.abs(binary - latent)[:, has_two] / distance[has_two]))
    of = f"its latent weights are two values per filter, and its quantizer moves them by {moved:.0%} of their distance"
    return of if moved > _SCALE_SPREAD else None


def ties(reference: Reference, inputs: Mapping[str, np.ndarray]) -> list[str]:
    """The 1-bit layers with inputs so close to 0 that rounding decides their signs, as before any training."""
    calls = binary_calls(reference)
    values = reference.values(inputs, [call.call.inputs[0] for call in calls])
    return [call.name for call, x in zip(calls, values, strict=True) if np.any(np.abs(x) <= _TIE * np.abs(x).max())]


def padded_with_zeros(reference: Reference) -> list[str]:
    """The 1-bit layers that pad their input with zeros."""
    return [
        binary.name
        for binary in binary_calls(reference)
        for operation in [reference.operation(reference.order[binary.convolutions[0]])]
        if operation.type == "Conv2D" and operation.get_attr("padding") == b"SAME" and _is_wide(operation)
    ]


def _is_wide(operation: tf.Operation) -> bool:
    return any(size > 1 for size in operation.inputs[1].shape[:2])


def miscomputed(reference: Reference, binary: BinaryCall) -> str | None:
    """Why LCE would bitpack a layer but compute something else, with the fix, as in `diagnose`; None if it would not.

    LCE's optimized kernels correct for zero padding as if the convolution's kernel fitted into the image.
    """
    operation = reference.operation(reference.order[binary.convolutions[0]])
    if operation.type != "Conv2D" or operation.get_attr("padding") != b"SAME":
        return None
    image, kernel = (value.shape for value in operation.inputs)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel[:2], operation.get_attr("dilations")[1:3], strict=True)]
    if image[1] >= reach[0] and image[2] >= reach[1]:
        return None
    return (
        f"it pads maps of {image[1]}x{image[2]} with zeros for a {reach[0]}x{reach[1]} kernel, which LCE's optimized "
        f"kernels compute wrongly: use pad_values=1.0, or larger images"
    )


def _values(reference: Reference, binary: BinaryCall) -> tuple[np.ndarray, np.ndarray]:
    """The layer's binarized kernel, and the input of its convolution for one random image."""
    generator = np.random.default_rng(0)
    inputs = {
        name: np.asarray(generator.normal(size=spec.shape) * spec.dtype.is_floating, spec.dtype.as_numpy_dtype)
        for name, spec in reference.signature.items()
    }
    operation = reference.operation(reference.order[binary.convolutions[0]])
    kernel, source = reference.values(inputs, [binary.kernels[0], operation.inputs[0].name])
    return kernel, source


def _by_values(binary: BinaryCall, kernel: np.ndarray, source: np.ndarray) -> str | None:
    groups, channels = getattr(binary.layer, "groups", 1), kernel.shape[2]
    if groups > 1 and channels % CHANNELS_PER_WORD:
        return f"it has {channels} channels per group, not a multiple of {CHANNELS_PER_WORD}: choose other groups"
    padding = getattr(binary.layer, "pad_values", 0.0)
    if binary.layer.padding == "causal":
        return "it pads on one side with zeros: use padding='valid' after a padding layer, or padding='same'"
    if binary.layer.padding == "same" and padding not in (0.0, 1.0):
        return f"it pads with {padding}: use pad_values=1.0"
    magnitudes = np.abs(kernel.reshape(-1, kernel.shape[-1]))
    dead = np.flatnonzero(magnitudes.max(0) < _SMALLEST_SCALE)
    if len(dead):
        return f"filter {dead[0]} of its kernel is dead (all weights near 0): scale after the convolution instead"
    if np.any(magnitudes.max(0) - magnitudes.min(0) > _SCALE_SPREAD * magnitudes.max(0)):
        return "its kernel is not ±s with one s per filter: scale per output channel, or after the convolution"
    if set(np.unique(source)) == {0.0, 1.0}:
        return "its input is binarized to 0 and 1, but LCE computes with -1 and +1: use ste_sign or the like"
    others = np.setdiff1d(np.unique(source), (-1.0, 1.0))
    if np.array_equal(others, [0.0]) and not np.any(source[:, 0]) and not np.any(source[:, :, 0]):
        return "its signs are padded with zeros before it: pad in the layer (padding='same', pad_values=1.0), or with 1"
    if len(others):
        return f"its input is not a sign (it holds {others[0]:.3g}): use an input quantizer that gives -1 and +1"
    return None
