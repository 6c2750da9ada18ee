"""Why a layer that is meant to be 1-bit did not become a binary convolution, and what to do about it."""

import numpy as np

from kbnn.converters.graph.binary_layers import BinaryCall
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite.lce import CHANNELS_PER_WORD

# The converter's own limits: a smaller magnitude counts as zero, magnitudes of a filter may differ by this share.
_SMALLEST_SCALE = 1.2e-7
_SCALE_SPREAD = 0.005


def diagnose(reference: Reference, binary: BinaryCall) -> str:
    """One clause: the reason, and after a colon the fix."""
    operation = reference.operation(reference.order[binary.convolutions[0]])
    if operation.type == "MatMul":
        return "LCE has no binary dense operator: use a 1x1 kbnn.layers.BinaryConv2D, or flatten its input"
    if operation.type != "Conv2D":
        return f"LCE has no binary {operation.type}: use kbnn.layers.BinaryConv2D, or leave the layer real-valued"
    kernel, source = _values(reference, binary)
    return _by_values(binary, kernel, source) or (
        "LCE does not recognise how its input is binarized: use a quantizer of kbnn or Larq, right before it"
    )


def miscomputed(reference: Reference, binary: BinaryCall) -> str | None:
    """One clause, as `diagnose`, where LCE bitpacks a layer and computes something else; None where it does not.

    Its optimised kernels correct for zeros around an image as if the kernel fitted into it.
    """
    operation = reference.operation(reference.order[binary.convolutions[0]])
    if operation.type != "Conv2D" or operation.get_attr("padding") != b"SAME":
        return None
    image, kernel = (value.shape for value in operation.inputs)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel[:2], operation.get_attr("dilations")[1:3], strict=True)]
    if image[1] >= reach[0] and image[2] >= reach[1]:
        return None
    return (
        f"it pads {image[1]}x{image[2]} places with zeros for a {reach[0]}x{reach[1]} kernel, which LCE's optimised "
        f"kernels compute wrongly: use pad_values=1.0, or larger images"
    )


def _values(reference: Reference, binary: BinaryCall) -> tuple[np.ndarray, np.ndarray]:
    """The layer's binarized kernel, and what it convolves, on one random image."""
    generator = np.random.default_rng(0)
    image = {name: generator.normal(size=spec.shape) for name, spec in reference.signature.items()}
    inputs = {name: value.astype(reference.signature[name].dtype.as_numpy_dtype) for name, value in image.items()}
    operation = reference.operation(reference.order[binary.convolutions[0]])
    kernel, source = reference.values(inputs, [binary.kernels[0], operation.inputs[0].name])
    return kernel, source


def _by_values(binary: BinaryCall, kernel: np.ndarray, source: np.ndarray) -> str | None:
    groups, channels = getattr(binary.layer, "groups", 1), kernel.shape[2]
    if groups > 1 and channels % CHANNELS_PER_WORD:
        return f"it has {channels} channels per group, not a multiple of {CHANNELS_PER_WORD}: choose other groups"
    padding = getattr(binary.layer, "pad_values", 0.0)
    if binary.layer.padding == "same" and padding not in (0.0, 1.0):
        return f"it pads with {padding}: use pad_values=1.0"
    magnitudes = np.abs(kernel.reshape(-1, kernel.shape[-1]))
    dead = np.flatnonzero(magnitudes.max(0) < _SMALLEST_SCALE)
    if len(dead):
        return f"filter {dead[0]} of its kernel is dead (all weights near 0): scale after the convolution instead"
    if np.any(magnitudes.max(0) - magnitudes.min(0) > _SCALE_SPREAD * magnitudes.max(0)):
        return "its kernel is not ±s with one s per filter: scale per output channel, or after the convolution"
    others = np.setdiff1d(np.unique(source), (-1.0, 0.0 if padding == 0.0 else 1.0, 1.0))
    if len(others):
        return f"its input is not a sign (it holds {others[0]:.3g}): use an input quantizer that gives -1 and +1"
    return None
