"""Parity: does a file compute what Keras computes?

In a deep binary network one float rounding can flip a sign, and one flip spreads, so logits that differ prove nothing
and logits that agree prove little. What is proven instead: every packed kernel bit, and every layer by itself, fed
with Keras's own input. End to end, the median over the images must agree.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn import tables
from kbnn.converters import flatbuffer, native
from kbnn.converters.alignment import Aligned, align, pack_signs, take_apart, unpack_signs
from kbnn.converters.binary_layers import BinaryCall, binary_calls, filters
from kbnn.converters.flatbuffer import File, Operator
from kbnn.converters.inspection import data_input
from kbnn.converters.reference import Reference, call, output_names
from kbnn.errors import KbnnError, UsageError

# Of the range of a layer's values.
LAYER_TOLERANCE = 1e-4
# Of the rms of what the sign is taken of: nearer to zero, rounding decides.
FLIP_TOLERANCE = 1e-4
# Of the range of the logits, for the median image.
LOGIT_TOLERANCE = 1e-2
_LAYER_IMAGES = 4
_BATCH = 32

Images = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LayerParity:
    """One tensor of the file against Keras on one kernel; `difference` is relative to the range of Keras's values.

    `flips` counts the signs that differ though Keras's value is not near zero.
    """

    name: str
    kernel: str
    values: int
    difference: float
    flips: int
    passed: bool


@dataclass(frozen=True)
class KernelBits:
    """A 1-bit layer's packed kernel against Keras's; `differing` is None where the file has no such kernel."""

    name: str
    bits: int
    differing: int | None


@dataclass(frozen=True)
class Run:
    """All images end to end on one of the interpreter's kernels; `refused` says why a kernel does not run the file."""

    kernel: str
    refused: str | None
    top1_agreement: float
    max_abs_difference: float
    mean_abs_difference: float
    median_abs_difference: float


@dataclass(frozen=True)
class Disagreement:
    """An image that the file puts in another class; `margin` is Keras's, between the two classes."""

    image: int
    keras: int
    file: int
    margin: float


@dataclass(frozen=True)
class Parity:
    """What `verify` finds. The figures are the worst of all kernels that run the file.

    `max_abs_difference`, `mean_abs_difference` and `median_abs_difference` are taken over images of the largest
    difference of a logit; `logit_range` is Keras's.
    """

    path: str
    passed: bool
    failures: list[str]
    samples: int
    top1_agreement: float
    max_abs_difference: float
    mean_abs_difference: float
    median_abs_difference: float
    logit_range: float
    kernel_bits_equal: bool
    kernels: list[KernelBits]
    layers: list[LayerParity]
    runs: list[Run]
    disagreements: list[Disagreement]

    def __str__(self) -> str:
        bits = sum(kernel.bits for kernel in self.kernels)
        worst = max((layer.difference for layer in self.layers), default=0.0)
        flips = sum(layer.flips for layer in self.layers)
        run_rows = [_run_row(run) for run in self.runs]
        lines = [
            f"{self.path}: {'equal to' if self.passed else 'NOT equal to'} Keras on {self.samples} images",
            "",
            f"largest logit difference of an image (logit range {self.logit_range:.3g}):",
            tables.render(("kernel", ">top-1 agreement", ">max", ">mean", ">median"), run_rows),
            "",
            f"kernel bits: {bits:,} in {len(self.kernels)} layers, {'' if self.kernel_bits_equal else 'NOT '}all equal",
            f"layers, each fed with Keras's own input: {len({layer.name for layer in self.layers})}",
            f"largest difference of a layer: {worst:.1e} of its range, {flips} flipped signs",
        ]
        if self.disagreements:
            rows = [(d.image, d.keras, d.file, f"{d.margin:.4f}") for d in self.disagreements]
            lines += ["", tables.render((">image", ">Keras's class", ">file's class", ">Keras's margin"), rows)]
        return "\n".join([*lines, *(f"failed: {failure}" for failure in self.failures)])


def verify(model: tf.keras.Model, path: str | os.PathLike[str], images: Images) -> Parity:
    """Compares a file with the Keras model it was made of, on LCE's three kernels.

    Passes when every packed kernel bit is Keras's, every layer that is fed with Keras's own input is within 1e-4 of
    the range of its values (signs may differ where |x| <= 1e-4·rms), and the median over the images of the largest
    logit difference is under 1e-2 of the range of the logits.

    Args:
        model: the Keras model.
        path: the .tflite file.
        images: the network's input `(B, ...)`, at least 32 of them for a verdict that means something; a sequence or
            a mapping by name for several inputs.

    Raises:
        UsageError: no such file, or images of another shape.
        KbnnError: the file is damaged, holds no LCE operator, has other inputs than the model, or does not run.

    Example:
        >>> parity = kbnn.converters.verify(model, "model.tflite", images)
        >>> parity.passed, parity.median_abs_difference, parity.disagreements
    """
    file = flatbuffer.read(path)
    if not file.is_lce:
        raise KbnnError(
            f"'{os.fspath(path)}' holds no operator of Larq Compute Engine, so nothing in it is bitpacked: "
            f"convert the model with kbnn convert"
        )
    return compare(model, file, images, os.fspath(path))


def compare(model: tf.keras.Model, file: File, images: Images, path: str = "the file") -> Parity:
    """`verify` for a file that is read already."""
    reference = Reference(model)
    inputs = _inputs(reference, file, images)
    logits = _logits(reference, inputs)
    results = [_run(file, inputs, logits, kernel) for kernel in native.KERNELS]
    runs, predictions = [run for run, _ in results], [made for _, made in results if made is not None]
    if not predictions:
        raise KbnnError(f"no kernel runs '{path}': {runs[0].refused}")
    kernels = _kernel_bits(reference, file)
    layers = _layers(reference, file, inputs, [run.kernel for run in runs if run.refused is None])
    span = float(np.ptp(logits)) or 1.0
    failures = _failures(runs, kernels, layers, span)
    ran = [run for run in runs if run.refused is None]
    return Parity(
        path=path,
        passed=not failures,
        failures=failures,
        samples=len(logits),
        top1_agreement=min(run.top1_agreement for run in ran),
        max_abs_difference=max(run.max_abs_difference for run in ran),
        mean_abs_difference=max(run.mean_abs_difference for run in ran),
        median_abs_difference=max(run.median_abs_difference for run in ran),
        logit_range=span,
        kernel_bits_equal=all(kernel.differing == 0 for kernel in kernels),
        kernels=kernels,
        layers=layers,
        runs=runs,
        disagreements=_disagreements(logits, predictions[0]),
    )


def _inputs(reference: Reference, file: File, images: Images) -> dict[str, np.ndarray]:
    """The images by input name, in the model's order, checked against the model and the file."""
    names = list(reference.signature)
    if isinstance(images, Mapping):
        given = [images[name] for name in names if name in images]
    else:
        given = [images] if isinstance(images, np.ndarray) else list(images)
    arrays = {name: np.asarray(array, np.float32) for name, array in zip(names, given, strict=False)}
    for name, spec in reference.signature.items():
        received = arrays[name].shape if name in arrays else None
        if received is None or received[1:] != tuple(spec.shape[1:]) or not received[0]:
            raise UsageError(
                f"the images do not fit input '{name}': received {received}, give (images, *{tuple(spec.shape[1:])})"
            )
    expected = sorted(tuple(spec.shape[1:]) for spec in reference.signature.values())
    if sorted(tensor.shape[1:] for tensor in file.inputs.values()) != expected:
        raise KbnnError(
            f"the file was made of another model: its inputs are "
            f"{[tensor.shape for tensor in file.inputs.values()]}, the model's {[(1, *shape) for shape in expected]}"
        )
    return arrays


def _logits(reference: Reference, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """All outputs of Keras side by side: `(B, values)`."""
    model, size = reference.model, len(next(iter(inputs.values())))
    parts = []
    for k in range(0, size, _BATCH):
        batch = {name: tf.constant(array[k : k + _BATCH]) for name, array in inputs.items()}
        outputs = output_names(model, call(model, batch))
        parts.append(_side_by_side([outputs[name].numpy() for name in sorted(outputs)]))
    return np.concatenate(parts)


def _side_by_side(outputs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.reshape(output, (len(output), -1)) for output in outputs], axis=1)


def _run(file: File, inputs: dict[str, np.ndarray], logits: np.ndarray, kernel: str) -> tuple[Run, np.ndarray | None]:
    """One kernel end to end, and what it predicts; nothing where the kernel refuses the file."""
    by_name = set(file.inputs) == set(inputs)
    names = list(file.inputs) if by_name else list(inputs)
    try:
        outputs = native.run(file.data, [inputs[name] for name in names], kernel=kernel)
    except native.UnsupportedKernelError as error:
        return Run(kernel, str(error), 0.0, 0.0, 0.0, 0.0), None
    order = sorted(range(len(outputs)), key=list(file.outputs).__getitem__)
    predicted = _side_by_side([outputs[k] for k in order])
    if predicted.shape != logits.shape:
        raise KbnnError(
            f"the file was made of another model: it has {predicted.shape[1]} outputs, the model {logits.shape[1]}"
        )
    largest = np.abs(predicted - logits).max(1)
    # A file that yields NaN agrees with nothing.
    largest = np.where(np.isfinite(largest), largest, np.inf)
    agreement = float((predicted.argmax(1) == logits.argmax(1)).mean())
    return (
        Run(kernel, None, agreement, float(largest.max()), float(largest.mean()), float(np.median(largest))),
        predicted,
    )


def _disagreements(logits: np.ndarray, predicted: np.ndarray) -> list[Disagreement]:
    keras, file = logits.argmax(1), predicted.argmax(1)
    return [
        Disagreement(int(k), int(keras[k]), int(file[k]), float(logits[k, keras[k]] - logits[k, file[k]]))
        for k in np.flatnonzero(keras != file)
    ]


def _kernel_bits(reference: Reference, file: File) -> list[KernelBits]:
    """Every packed kernel against the one that Keras convolves with."""
    calls = binary_calls(reference)
    found = match(reference, file, calls)
    values = reference.values(_one_image(reference), [call.kernels[0] for call in calls])
    return [_compare_bits(calls[k], found.get(k), kernel) for k, kernel in enumerate(values)]


def _one_image(reference: Reference) -> dict[str, np.ndarray]:
    return {name: np.zeros(spec.shape, spec.dtype.as_numpy_dtype) for name, spec in reference.signature.items()}


def match(reference: Reference, file: File, calls: list[BinaryCall]) -> dict[int, Operator]:
    """Which binary convolution of the file each call of a 1-bit layer became, by the names of what they compute."""
    found: dict[int, Operator] = {}
    for operator in file.operators:
        if operator.name == "LceBconv2d":
            written = {reference.index(piece) for piece in operator.outputs[0].name.split(";")}
            read = {reference.index(piece) for piece in data_input(operator).name.split(";")}
            by_output = [k for k, c in enumerate(calls) if {reference.index(name) for name in c.convolutions} & written]
            by_input = [k for k, c in enumerate(calls) if any(i is not None and i in c.call for i in read)]
            free = [k for k in [*by_output, *by_input] if k not in found]
            if free:
                found[free[0]] = operator
    return found


def _compare_bits(call: BinaryCall, operator: Operator | None, kernel: np.ndarray) -> KernelBits:
    expected = filters(kernel)
    if operator is None or operator.inputs[1] is None:
        return KernelBits(call.name, expected.size, None)
    packed = operator.inputs[1].value()
    if packed.shape[:3] != expected.shape[:3] or packed.shape[3] != -(-expected.shape[3] // 32):
        return KernelBits(call.name, expected.size, None)
    differing = (unpack_signs(packed, expected.shape[3]) != expected).reshape(len(expected), -1)
    per_filter = differing.sum(1)
    if operator.outputs[0].dtype == "int32":
        # Where the output is bitpacked, a filter before a negative multiplier is stored negated, its threshold too.
        per_filter = np.where(per_filter == differing.shape[1], 0, per_filter)
    return KernelBits(call.name, expected.size, int(per_filter.sum()))


def _layers(reference: Reference, file: File, inputs: dict[str, np.ndarray], kernels: list[str]) -> list[LayerParity]:
    """Every tensor of the file that has a counterpart in Keras, computed from Keras's own values, on each kernel."""
    apart, fed, computed = take_apart(file, align(file, reference))
    if not computed:
        return []
    few = {name: array[:_LAYER_IMAGES] for name, array in inputs.items()}
    needed = dict.fromkeys(item.value for item in [*fed, *computed])
    needed |= dict.fromkeys(item.presign for item in computed if item.presign is not None)
    values = dict(zip(needed, reference.values(few, list(needed)), strict=True))
    names = list(file.inputs) if set(file.inputs) == set(few) else list(few)
    given = [few[name] for name in names] + [_as_stored(item, values[item.value]) for item in fed]
    found = []
    for kernel in kernels:
        outputs = native.run(apart, given, kernel=kernel)
        found += [_layer(item, kernel, values, output) for item, output in zip(computed, outputs, strict=True)]
    return found


def _as_stored(item: Aligned, value: np.ndarray) -> np.ndarray:
    return pack_signs(value) if item.is_bitpacked else value.astype(np.float32)


def _layer(item: Aligned, kernel: str, values: dict[str, np.ndarray], output: np.ndarray) -> LayerParity:
    expected = values[item.value]
    if not item.is_bitpacked:
        difference = float(np.abs(output - expected).max() / (np.ptp(expected) or 1.0))
        return LayerParity(item.layer, kernel, expected.size, difference, 0, bool(difference <= LAYER_TOLERANCE))
    differing = unpack_signs(output, expected.shape[-1]) != (expected < 0)
    if item.presign is not None:
        presign = values[item.presign]
        differing &= np.abs(presign) > FLIP_TOLERANCE * np.sqrt(np.mean(np.square(presign)))
    flips = int(differing.sum())
    return LayerParity(item.layer, kernel, expected.size, 0.0, flips, not flips)


def _failures(runs: list[Run], kernels: list[KernelBits], layers: list[LayerParity], span: float) -> list[str]:
    """What departs, in words; empty when the file is equal."""
    found = []
    for kernel in kernels:
        if kernel.differing is None:
            found.append(f"layer '{kernel.name}' is not bitpacked in the file")
        elif kernel.differing:
            found.append(f"layer '{kernel.name}': {kernel.differing} of {kernel.bits} kernel bits are not Keras's")
    for name in dict.fromkeys(layer.name for layer in layers if not layer.passed):
        worst = [layer for layer in layers if layer.name == name and not layer.passed]
        found.append(
            f"layer '{name}' departs from Keras on the {', '.join(layer.kernel for layer in worst)} kernel: by "
            f"{max(layer.difference for layer in worst):.1e} of its range, {max(layer.flips for layer in worst)} signs"
        )
    for run in runs:
        if run.refused is None and not run.median_abs_difference < LOGIT_TOLERANCE * span:
            found.append(
                f"the outputs depart from Keras's on the {run.kernel} kernel: the median image by "
                f"{run.median_abs_difference / span:.1e} of the range"
            )
    return found


def _run_row(run: Run) -> tuple[object, ...]:
    if run.refused is not None:
        return run.kernel, run.refused, "", "", ""
    figures = (run.max_abs_difference, run.mean_abs_difference, run.median_abs_difference)
    return run.kernel, f"{run.top1_agreement:.2%}", *(f"{figure:.2e}" for figure in figures)
