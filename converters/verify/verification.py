"""Parity: does a file compute what Keras computes?

In a deep binary network one float rounding can flip a sign, and one flip spreads, so logits that differ prove nothing
and logits that agree prove little. What is proven instead: every packed kernel bit, and every layer by itself, fed
with Keras's own input. End to end, the median over the images must agree, as far as Keras agrees with itself.
"""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn import tables
from kbnn.converters.graph.graph import Graph, simulated
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.passes.hybrid import in_hybrid
from kbnn.converters.tflite import flatbuffer, interpreter
from kbnn.converters.tflite.converter import MADE_BY
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.int8_weights import rounded
from kbnn.converters.verify.alignment import align, align_rounded
from kbnn.converters.verify.kernel_bits import KernelBits, compare_bits, find_packed
from kbnn.converters.verify.layer_parity import LayerParity, compare_layers
from kbnn.errors import KbnnError, UsageError
from kbnn.precision import in_float32

# Of the range of the logits, for the median image.
LOGIT_TOLERANCE = 1e-2
# How much images are changed to see what rounding alone does to a network, of their range: about what a layer's values
# differ by; and how many times as far as Keras's own outputs then move, a file's may lie.
PERTURBATION = 1e-6
SENSITIVITY_MARGIN = 4.0
# In int8 every value is rounded, and the signs that flip with it move the logits of a deep network by much more. A file
# that puts most images elsewhere was calibrated on something else than images of its kind.
INT8_AGREEMENT = 0.5
_LAYER_IMAGES = 4

Images = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]


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
class Rounding:
    """What rounding the weights to int8 did to Keras's outputs on the same images, whatever the file."""

    top1_agreement: float
    max_abs_difference: float
    median_abs_difference: float


@dataclass(frozen=True)
class Parity:
    """What `verify` finds. The figures are the worst of all kernels that run the file.

    `max_abs_difference`, `mean_abs_difference` and `median_abs_difference` are taken over images of the largest
    difference of a logit; `logit_range` is Keras's. A file with int8 weights is compared with Keras with its weights
    rounded so, and `rounding` says what that did. Of a file in int8 the figures say what rounding did, too; its
    layers are compared with those of the deployed graph with all values rounded so. `sensitivity`, known where the
    outputs depart, is how far Keras's own move in the median image when the images change by 1e-6 of their range.
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
    rounding: Rounding | None = None
    in_int8: bool = False
    sensitivity: float | None = None

    def __str__(self) -> str:
        bits = sum(kernel.bits for kernel in self.kernels)
        worst = max((layer.difference for layer in self.layers), default=0.0)
        flips = sum(layer.flips for layer in self.layers)
        rounded = " rounded to int8" if self.in_int8 else ""
        lines = [
            f"{self.path}: {'equal to' if self.passed else 'NOT equal to'} Keras{rounded} on {self.samples} images",
            "",
            f"largest logit difference of an image (logit range {self.logit_range:.3g}):",
            tables.render(("kernel", ">top-1 agreement", ">max", ">mean", ">median"), map(_run_row, self.runs)),
            "",
            f"kernel bits: {bits:,} in {len(self.kernels)} layers, {'' if self.kernel_bits_equal else 'NOT '}all equal",
            f"layers, each fed with Keras's own input: {len({layer.name for layer in self.layers})}",
            f"largest difference of a layer: {worst:.1e} of its range, {flips} flipped signs",
        ]
        if self.rounding is not None:
            lines.append(
                f"rounding the weights to int8: {self.rounding.top1_agreement:.2%} of the images stay in their class, "
                f"logits of the median image move by {self.rounding.median_abs_difference:.1e}"
            )
        if self.sensitivity is not None:
            lines.append(
                f"Keras's own logits of the median image move by {self.sensitivity:.1e} when the images change by "
                f"{PERTURBATION:.0e} of their range: rounding turns signs, and each spreads"
            )
        if self.disagreements:
            rows = [(d.image, d.keras, d.file, f"{d.margin:.4f}") for d in self.disagreements]
            lines += ["", tables.render((">image", ">Keras's class", ">file's class", ">Keras's margin"), rows)]
        return "\n".join([*lines, *(f"failed: {failure}" for failure in self.failures)])


def verify(model: tf.keras.Model, path: str | os.PathLike[str], images: Images) -> Parity:
    """Compares a file with the Keras model it was made of, on LCE's three kernels.

    Passes when every packed kernel bit is Keras's, every layer that is fed with Keras's own input is within 1e-4 of
    the range of its values (signs may differ where |x| <= 1e-4·rms), and the median over the images of the largest
    logit difference is under 1e-2 of the range of the logits. Where it is not, a deep network may turn rounding alone
    into as much: it still passes when Keras's own logits move by a quarter as much or more under a change of the images
    by 1e-6 of their range. In int8: every layer within 2 of the 255 steps of its range, and at least half of the
    images in Keras's class.

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
    return compare(Reference(in_float32(model)), file, images, os.fspath(path))


def compare(keras: Reference, file: File, images: Images, path: str = "the file", graph: Graph | None = None) -> Parity:
    """`verify` for a file at hand; `graph` is what it was made of, if that is at hand too."""
    options = options_of(file)
    reference = keras if options is None else reference_for(keras, options)
    if options is not None and graph is None:
        graph = deploy(reference, options)
    inputs = _inputs(reference, file, images)
    rounds = _rounding_graph(graph, options)
    logits = _side_by_side(reference.logits(inputs))
    tried = [_run(file, inputs, logits, kernel) for kernel in interpreter.KERNELS]
    runs = [run for run, _ in tried]
    ran, predictions = [run for run in runs if run.refused is None], [made for _, made in tried if made is not None]
    if not ran:
        raise KbnnError(f"no kernel runs '{path}': {runs[0].refused}")
    kernels = compare_bits(reference, find_packed(file, reference, graph), options.allow_float if options else ())
    few = {name: array[:_LAYER_IMAGES] for name, array in inputs.items()}
    on = [run.kernel for run in ran]
    aligned = align(file, reference, graph)
    if rounds is None:
        layers = compare_layers(reference.values, file, aligned, few, on)
    else:
        layers = compare_layers(functools.partial(simulated, rounds), file, align_rounded(file, rounds), few, on)
    span = float(np.ptp(logits)) or 1.0
    failures = _failures(kernels, layers)
    departed = [run for run in ran if not run.median_abs_difference < LOGIT_TOLERANCE * span]
    sensitivity = _sensitivity(reference, inputs, logits) if departed and rounds is None else None
    if sensitivity is not None:
        wrong = [run for run in departed if not run.median_abs_difference <= SENSITIVITY_MARGIN * sensitivity]
        if graph is not None and not failures and all(t.index in aligned for t in file.outputs.values()):
            wrong = [run for run in wrong if not _computes_graph(file, graph, inputs, run.kernel, span)]
        failures += _departures(wrong, span, sensitivity)
    if rounds is not None:
        failures += [*_rewriting_errors(reference, options, inputs, logits), *_losses(ran)]
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
        in_int8=rounds is not None,
        sensitivity=sensitivity,
        rounding=None if reference is keras else _rounding(_side_by_side(keras.logits(inputs)), logits),
    )


def _rounding_graph(graph: Graph | None, options: Options | None) -> Graph | None:
    """The graph that rounds its values as the file does; None for a file whose activations are float."""
    if graph is None or options is None or not (options.limits or options.hybrid):
        return None
    return in_hybrid(graph, options.hybrid)


def reference_for(keras: Reference, options: Options) -> Reference:
    """What a file of these options has to compute."""
    return rounded(keras, options.in_16_bits) if options.weights == "int8" else keras


def options_of(file: File) -> Options | None:
    """How kbnn made a file, as its metadata say; None for a file that it did not make."""
    if MADE_BY not in file.metadata:
        return None
    try:
        return Options.from_json(json.loads(file.metadata[MADE_BY]))
    except (TypeError, ValueError):
        return None


def inputs_by_name(reference: Reference, images: Images) -> dict[str, np.ndarray]:
    """The images by input name, checked against the model.

    Raises:
        UsageError: images of another shape, or none.
    """
    names = list(reference.signature)
    if isinstance(images, Mapping):
        given = {name: np.asarray(images[name]) for name in names if name in images}
    else:
        arrays = [images] if isinstance(images, np.ndarray) else list(images)
        given = dict(zip(names, map(np.asarray, arrays), strict=False))
    for name, spec in reference.signature.items():
        received = given[name].shape if name in given else None
        if received is None or received[1:] != tuple(spec.shape[1:]) or not received[0]:
            raise UsageError(
                f"the images do not fit input '{name}': received {received}, give (images, *{tuple(spec.shape[1:])})"
            )
    return {name: given[name].astype(spec.dtype.as_numpy_dtype) for name, spec in reference.signature.items()}


def _inputs(reference: Reference, file: File, images: Images) -> dict[str, np.ndarray]:
    """The images by input name, in the file's order, checked against the model and the file."""
    given, names = inputs_by_name(reference, images), list(reference.signature)
    # A file not made by us may name its inputs otherwise; then their order counts.
    order = list(file.inputs) if set(file.inputs) == set(names) else names
    expected = [tuple(reference.signature[name].shape[1:]) for name in order]
    received_shapes = [tensor.shape[1:] for tensor in file.inputs.values()]
    if received_shapes != expected:
        raise KbnnError(
            f"the file was made of another model: its inputs are {received_shapes}, the model's are {expected}"
        )
    return {name: given[name] for name in order}


def _side_by_side(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """All outputs in the order of their names: `(B, values)`."""
    return np.concatenate([np.reshape(outputs[name], (len(outputs[name]), -1)) for name in sorted(outputs)], axis=1)


def _run(file: File, inputs: dict[str, np.ndarray], logits: np.ndarray, kernel: str) -> tuple[Run, np.ndarray | None]:
    """One kernel end to end, and what it predicts; nothing where the kernel refuses the file."""
    try:
        outputs = interpreter.run(file.data, list(inputs.values()), kernel=kernel)
    except interpreter.UnsupportedKernelError as error:
        return Run(kernel, str(error), 0.0, 0.0, 0.0, 0.0), None
    predicted = _side_by_side(dict(zip(file.outputs, outputs, strict=True)))
    if predicted.shape != logits.shape:
        raise KbnnError(
            f"the file was made of another model: it has {predicted.shape[1]} outputs, the model {logits.shape[1]}"
        )
    # A file that yields NaN or infinity agrees with nothing.
    with np.errstate(invalid="ignore"):
        largest = np.abs(predicted.astype(np.float64) - logits).max(1)
    largest = np.where(np.isfinite(largest), largest, np.inf)
    agreement = float((predicted.argmax(1) == logits.argmax(1)).mean())
    figures = (float(largest.max()), float(largest.mean()), float(np.median(largest)))
    return Run(kernel, None, agreement, *figures), predicted


def _rounding(exact: np.ndarray, logits: np.ndarray) -> Rounding:
    largest = np.abs(logits - exact).max(1)
    agreement = float((logits.argmax(1) == exact.argmax(1)).mean())
    return Rounding(agreement, float(largest.max()), float(np.median(largest)))


def _disagreements(logits: np.ndarray, predicted: np.ndarray) -> list[Disagreement]:
    keras, file = logits.argmax(1), predicted.argmax(1)
    return [
        Disagreement(int(k), int(keras[k]), int(file[k]), float(logits[k, keras[k]] - logits[k, file[k]]))
        for k in np.flatnonzero(keras != file)
    ]


def _failures(kernels: list[KernelBits], layers: list[LayerParity]) -> list[str]:
    """What departs, in words; empty when the file is equal."""
    found = []
    for kernel in kernels:
        if kernel.differing is None:
            found.append(f"layer '{kernel.name}' is not bitpacked in the file")
        elif kernel.differing:
            found.append(f"layer '{kernel.name}': {kernel.differing} of {kernel.bits} kernel bits are not Keras's")
    for name in dict.fromkeys(layer.name for layer in layers if not layer.passed):
        worst = [layer for layer in layers if layer.name == name and not layer.passed]
        on = ", ".join(dict.fromkeys(layer.kernel for layer in worst))
        found.append(
            f"layer '{name}' departs from Keras (kernels: {on}) by {max(layer.difference for layer in worst):.1e} of "
            f"its range, {max(layer.flips for layer in worst)} signs"
        )
    return found


def _departures(wrong: list[Run], span: float, sensitivity: float) -> list[str]:
    return [
        f"the outputs depart from Keras's on the {run.kernel} kernel: the median image by "
        f"{run.median_abs_difference / span:.1e} of the range, where Keras's own move by {sensitivity / span:.1e} when "
        f"the images change by {PERTURBATION:.0e}"
        for run in wrong
    ]


def _computes_graph(file: File, graph: Graph, inputs: Mapping[str, np.ndarray], kernel: str, span: float) -> bool:
    """Whether a file's outputs are those of the rewritten graph, run by TensorFlow.

    Where Keras's kernels are ±s, sums that should be 0 are rounding errors of either sign, and the next sign keeps
    them. The graph and the file add integers. Its layers being equal to Keras's, such a file is right.
    """
    found = simulated(graph, inputs, list(graph.outputs.values()))
    expected = _side_by_side(dict(zip(graph.outputs, found, strict=True)))
    run, _ = _run(file, dict(inputs), expected, kernel)
    return run.median_abs_difference < LOGIT_TOLERANCE * span


def _sensitivity(reference: Reference, inputs: Mapping[str, np.ndarray], logits: np.ndarray) -> float:
    """How far Keras's logits of the median image move when the images change by what rounding changes values by."""
    generator = np.random.default_rng(0)
    changed = {name: _changed(array, generator) for name, array in inputs.items()}
    return float(np.median(np.abs(_side_by_side(reference.logits(changed)) - logits).max(1)))


def _changed(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if not np.issubdtype(images.dtype, np.floating):
        return images
    noise = generator.uniform(-1, 1, images.shape) * PERTURBATION * np.ptp(images)
    return (images + noise).astype(images.dtype)


def _rewriting_errors(
    reference: Reference, options: Options | None, inputs: Mapping[str, np.ndarray], logits: np.ndarray
) -> list[str]:
    """A file in int8 is compared with a graph, so that this has to be Keras's when nothing is rounded."""
    graph = deploy(reference, replace(options or Options(), limits={}))
    outputs = simulated(graph, inputs, list(graph.outputs.values()))
    largest = np.abs(_side_by_side(dict(zip(graph.outputs, outputs, strict=True))) - logits).max(1)
    if np.median(largest) < LOGIT_TOLERANCE * (np.ptp(logits) or 1.0):
        return []
    if np.median(largest) <= SENSITIVITY_MARGIN * _sensitivity(reference, inputs, logits):
        return []
    return [f"the rewritten network departs from Keras's: the median image by {np.median(largest):.1e}"]


def _losses(ran: list[Run]) -> list[str]:
    return [
        f"rounding to int8 leaves {run.top1_agreement:.0%} of the images in Keras's class on the {run.kernel} kernel: "
        f"calibrate on images prepared as the network will see them, or keep the activations in float"
        for run in ran
        if run.top1_agreement < INT8_AGREEMENT
    ]


def _run_row(run: Run) -> tuple[object, ...]:
    if run.refused is not None:
        return run.kernel, run.refused, "", "", ""
    figures = (run.max_abs_difference, run.mean_abs_difference, run.median_abs_difference)
    return run.kernel, f"{run.top1_agreement:.2%}", *(f"{figure:.2e}" for figure in figures)
