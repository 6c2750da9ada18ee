"""Parity: does a file compute what Keras computes?

In a deep binary network a rounding error can flip a sign, and a flipped sign spreads. Different logits therefore prove
no fault, and equal logits prove little. Instead, every packed kernel bit is compared, and every layer by itself, with
Keras's values as its input. End to end, the logits of the median image must agree as well as Keras agrees with itself.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from kbnn import tables
from kbnn.converters.graph.graph import Graph, simulated
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.passes.hybrid import in_hybrid
from kbnn.converters.tflite import flatbuffer, interpreter, metadata
from kbnn.converters.tflite.building import reference_for
from kbnn.converters.tflite.flatbuffer import File
from kbnn.converters.tflite.metadata import Description
from kbnn.converters.verify.agreement import (
    AccuracyInterval,
    OutputAgreement,
    Outputs,
    accuracy,
    agreements,
    class_scores,
    least,
    without_classes,
)
from kbnn.converters.verify.alignment import Aligned, align, align_rounded
from kbnn.converters.verify.diagnosis import padded_with_zeros, ties
from kbnn.converters.verify.kernel_bits import KernelBits, compare_bits, find_packed
from kbnn.converters.verify.layer_parity import LayerParity, compare_layers
from kbnn.converters.verify.rebuilding import Rebuilt, description_of, options_of, rebuild
from kbnn.errors import KbnnError, UsageError
from kbnn.precision import in_float32

# The largest allowed logit difference of the median image, as a fraction of the range of the logits.
LOGIT_TOLERANCE = 1e-2
# The effect of rounding on a network is measured by how far Keras's outputs move when the images change by this
# fraction of their range, about as much as rounding changes the values of a layer. The outputs of a file may be this
# many times as far from Keras's.
PERTURBATION = 1e-6
SENSITIVITY_MARGIN = 4.0
# In int8 every value is rounded, and the signs that flip move the logits of a deep network much further. A file that
# puts most images into other classes was calibrated on the wrong kind of images.
INT8_AGREEMENT = 0.5
# How many images layers are compared on. A file that is not identical to a new conversion needs more, because a
# threshold that is off by one changes few values.
_LAYER_IMAGES = 4
_MORE_LAYER_IMAGES = 32

Images = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class KernelRun:
    """All images end to end on one of the interpreter's kernels; `refused` tells why the kernel cannot run the file.

    `top1_agreement` is 1 if no output predicts classes.
    """

    kernel: str
    refused: str | None
    top1_agreement: float
    max_abs_difference: float
    mean_abs_difference: float
    median_abs_difference: float


@dataclass(frozen=True)
class Disagreement:
    """An image that the file puts into another class; `margin` is the difference of Keras's logits of both classes.

    A network with one probability p has the classes 0 and 1, with the scores 1 - p and p.
    """

    image: int
    keras: int
    file: int
    margin: float


@dataclass(frozen=True)
class Rounding:
    """How rounding the weights to int8 changes Keras's own outputs on the same images."""

    top1_agreement: float
    max_abs_difference: float
    median_abs_difference: float


@dataclass(frozen=True)
class Parity(tables.Shown):
    """What `verify` finds. The figures are those of the worst kernel that runs the file.

    `max_abs_difference`, `mean_abs_difference` and `median_abs_difference` are statistics over the images of each
    image's largest logit difference; `logit_range` is the range of Keras's logits. If the outputs differ by more than
    the tolerance, `sensitivity` is how far Keras's logits of the median image move when the images change by 1e-6 of
    their range.

    A file with int8 weights is compared with Keras after the same rounding of its weights, and `rounding` tells what
    this rounding changes. The layers of a file in int8 are compared with the deployed graph with all values rounded;
    its figures include the effect of rounding.

    `outputs` has the agreement at each output that predicts classes, `without_classes` the names of the other outputs,
    whose decisions are not compared, and `trained` the agreement with the network as it was trained, before any
    rounding. `accuracy` and `trained_accuracy` are those of the file and of the trained network on labelled images.
    `rebuilt` tells whether a new conversion of the model gives the same file byte for byte; it is None if there was no
    new conversion, and `not_rebuilt` is the reason.
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
    runs: list[KernelRun]
    disagreements: list[Disagreement]
    rounding: Rounding | None = None
    in_int8: bool = False
    sensitivity: float | None = None
    outputs: list[OutputAgreement] = field(default_factory=list)
    trained: list[OutputAgreement] = field(default_factory=list)
    without_classes: list[str] = field(default_factory=list)
    accuracy: AccuracyInterval | None = None
    trained_accuracy: AccuracyInterval | None = None
    rebuilt: bool | None = None
    not_rebuilt: str | None = None

    @property
    def compared_with(self) -> str:
        """What the file is compared with, as text."""
        if self.in_int8:
            return "Keras rounded to int8"
        return "Keras" if self.rounding is None else "Keras with its weights rounded to int8"

    @property
    def with_trained(self) -> str:
        """How the file compares with the network as it was trained, as text."""
        if len(self.trained) == 1:
            text = f"same class as the trained network for {self.trained[0]} (of {self.samples} images)"
        elif self.trained:
            each = ", ".join(f"'{output.name}' {output}" for output in self.trained)
            text = f"same class as the trained network at output {each} (of {self.samples} images)"
        else:
            text = f"outputs for {self.samples} images compared with the trained network's"
        if self.without_classes:
            names = ", ".join(f"'{name}'" for name in self.without_classes)
            text += f"; no decisions are compared at output {names}, which predicts no classes"
        if self.accuracy is not None:
            text += f"; accuracy {self.accuracy}, of the trained network {self.trained_accuracy}"
        return text

    def __str__(self) -> str:
        bits = sum(kernel.bits for kernel in self.kernels)
        worst = max((layer.difference for layer in self.layers), default=0.0)
        flips = sum(layer.flips for layer in self.layers)
        lines = [
            f"{self.path}: {self.with_trained}",
            f"{'equal to' if self.passed else 'NOT equal to'} {self.compared_with} on {self.samples} images",
            "",
            f"largest logit difference of an image (logit range {self.logit_range:.3g}):",
            tables.render(
                ("kernel", ">top-1 agreement", ">max", ">mean", ">median"),
                [_run_row(run, has_classes=bool(self.outputs)) for run in self.runs],
            ),
            "",
            f"kernel bits: {bits:,} in {len(self.kernels)} layers, {'' if self.kernel_bits_equal else 'NOT '}all equal",
            f"layers, each fed with Keras's own input: {len({layer.name for layer in self.layers})}",
            f"largest difference of a layer: {worst:.1e} of its range, {flips} flipped signs",
        ]
        if self.rebuilt:
            lines.append("a new conversion of the model gives the same file, byte for byte")
        elif self.not_rebuilt is not None:
            lines.append(f"not compared with a new conversion: {self.not_rebuilt}")
        if self.rounding is not None:
            lines.append(
                f"rounding the weights to int8: {self.rounding.top1_agreement:.2%} of the images stay in their class, "
                f"logits of the median image move by {self.rounding.median_abs_difference:.1e}"
            )
        if self.sensitivity is not None:
            lines.append(
                f"Keras's own logits of the median image move by {self.sensitivity:.1e} when the images change by "
                f"{PERTURBATION:.0e} of their range: rounding flips signs, and flipped signs spread"
            )
        if self.disagreements:
            rows = [(d.image, d.keras, d.file, f"{d.margin:.4f}") for d in self.disagreements]
            lines += ["", tables.render((">image", ">Keras's class", ">file's class", ">Keras's margin"), rows)]
        return "\n".join([*lines, *(f"failed: {failure}" for failure in self.failures)])


def verify(
    model: tf.keras.Model,
    path: str | os.PathLike[str],
    images: Images,
    *,
    labels: np.ndarray | None = None,
    description: Description | None = None,
) -> Parity:
    """Compares a file with the Keras model that it was made from, on LCE's three kernels.

    A file passes if all of these hold:

    - If this version of kbnn made it, a new conversion of the model gives the same file, byte for byte.
    - Every packed kernel bit equals Keras's.
    - Every layer, with Keras's values as its input, is within 1e-4 of the range of its values; signs may differ where
      |x| <= 1e-4·rms.
    - The largest logit difference of the median image is less than 1e-2 of the range of the logits. A larger one
      passes if Keras's own logits move by at least a quarter of it when the images change by 1e-6 of their range, or
      if all layers are equal and the outputs are those of the rewritten network.

    In a file in int8, every layer must be within 2 of the 255 steps of its range, and at least half of the images in
    Keras's class.

    Args:
        model: the Keras model.
        path: the .tflite file.
        images: the network's input `(B, ...)`, preferably at least 32 images; a sequence, or a mapping by name, for
            several inputs.
        labels: the classes of the images, to report the accuracies of the model and of the file.
        description: the description of the model's data set, whose labels and normalization the file must have.

    Raises:
        UsageError: no such file, or images of another shape.
        KbnnError: the file is damaged, contains no LCE operator, has other inputs than the model, or does not run.

    Example:
        >>> parity = kbnn.converters.verify(model, "model.tflite", images)
        >>> parity.passed, parity.median_abs_difference, parity.disagreements
    """
    file = flatbuffer.read(path)
    if not file.is_lce:
        raise KbnnError(
            f"'{os.fspath(path)}' contains no operator of Larq Compute Engine, so nothing in it is bitpacked: "
            f"convert the model with kbnn convert"
        )
    try:
        parity = compare(Reference(in_float32(model)), file, images, os.fspath(path), labels=labels)
    except KbnnError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise KbnnError(
            f"'{os.fspath(path)}' cannot be compared with the model: its operators do not match ({reason}); "
            f"convert the model again"
        ) from error
    wrong = _wrong_description(file, description)
    return replace(parity, passed=False, failures=[*parity.failures, wrong]) if wrong else parity


def compare(
    keras: Reference,
    file: File,
    images: Images,
    path: str = "the file",
    graph: Graph | None = None,
    labels: np.ndarray | None = None,
) -> Parity:
    """Compares a file that has been read with a traced model; see `verify`.

    `graph` is the graph that the file has just been made from, if so.
    """
    options = options_of(file)
    reference = keras if options is None else reference_for(keras, options)
    inputs = _inputs(reference, file, images)
    # A file that has just been made, or that kbnn did not make, is not converted again.
    rebuilt = rebuild(keras, file, options) if options is not None and graph is None else None
    case = _Case(file, reference, options, graph if rebuilt is None else rebuilt.graph, inputs)
    exact = reference.logits(inputs)
    # A file that is being made may not be kept where it is made.
    runs, predictions = _runs(case, exact, f"'{path}'" if graph is None else f"the file of model '{keras.model.name}'")
    ran = [run for run in runs if run.refused is None]
    allowed = options.allow_float if options is not None else ()
    kernels = compare_bits(reference, find_packed(file, reference, case.graph), allowed)
    is_explained = case.graph is not None and (rebuilt is None or rebuilt.differences == [])
    layers = _layers(case, _LAYER_IMAGES if is_explained else _MORE_LAYER_IMAGES, [run.kernel for run in ran])
    failures = [*(rebuilt.differences or [] if rebuilt is not None else []), *_failures(kernels, layers)]
    span = float(np.ptp(_side_by_side(exact))) or 1.0
    sensitivity, wrong_outputs = _compare_outputs(case, ran, exact, span, can_explain=not failures)
    failures += wrong_outputs
    trained = exact if reference is keras else keras.logits(inputs)
    return Parity(
        path=path,
        passed=not failures,
        failures=failures,
        samples=len(next(iter(exact.values()))),
        top1_agreement=min(run.top1_agreement for run in ran),
        max_abs_difference=max(run.max_abs_difference for run in ran),
        mean_abs_difference=max(run.mean_abs_difference for run in ran),
        median_abs_difference=max(run.median_abs_difference for run in ran),
        logit_range=span,
        kernel_bits_equal=all(kernel.differing == 0 for kernel in kernels),
        kernels=kernels,
        layers=layers,
        runs=runs,
        disagreements=_disagreements(exact, predictions[0]),
        in_int8=case.rounded is not None,
        sensitivity=sensitivity,
        rounding=None if reference is keras else _rounding(trained, exact),
        outputs=min((agreements(exact, made) for made in predictions), key=least),
        trained=min((agreements(trained, made) for made in predictions), key=least),
        without_classes=without_classes(exact),
        accuracy=None if labels is None else accuracy(predictions[0], labels),
        trained_accuracy=None if labels is None else accuracy(trained, labels),
        rebuilt=None if rebuilt is None or rebuilt.differences is None else not rebuilt.differences,
        not_rebuilt=_not_rebuilt(options, rebuilt),
    )


def _no_kernel(runs: list[KernelRun], padded: list[str], file: str) -> str:
    kernels: dict[str | None, list[str]] = {}
    for run in runs:
        kernels.setdefault(run.refused, []).append(run.kernel)
    reasons = "; ".join(f"{' and '.join(names)}: {reason}" for reason, names in kernels.items())
    layers = f" (padded with zeros: {', '.join(map(repr, padded))})" if padded else ""
    return f"no kernel runs {file}: {reasons}{layers}"


@dataclass(frozen=True)
class _Case:
    """A file, what it is compared with, and the images; `graph` is what it was made from, if that is known."""

    file: File
    reference: Reference
    options: Options | None
    graph: Graph | None
    inputs: Mapping[str, np.ndarray]

    @functools.cached_property
    def aligned(self) -> dict[int, Aligned]:
        """The tensors of the file that should hold Keras's values."""
        return align(self.file, self.reference, self.graph)

    @functools.cached_property
    def rounded(self) -> Graph | None:
        """The graph with its values rounded as in the file; None for a file with float activations."""
        options = self.options
        if self.graph is None or options is None or not (options.limits or options.hybrid):
            return None
        return in_hybrid(self.graph, options.hybrid)


def _runs(case: _Case, expected: Outputs, name: str) -> tuple[list[KernelRun], list[Outputs]]:
    """The runs on all kernels, and the outputs of those that run the file."""
    tried = [_run(case.file, case.inputs, expected, kernel) for kernel in interpreter.KERNELS]
    predictions = [made for _, made in tried if made is not None]
    if not predictions:
        raise KbnnError(_no_kernel([run for run, _ in tried], padded_with_zeros(case.reference), name))
    return [run for run, _ in tried], predictions


def _layers(case: _Case, count: int, kernels: Sequence[str]) -> list[LayerParity]:
    """Compares every layer by itself on the first `count` images."""
    few = {name: array[:count] for name, array in case.inputs.items()}
    if case.rounded is None:
        return compare_layers(case.reference.values, case.file, case.aligned, few, kernels)
    aligned = align_rounded(case.file, case.rounded)
    return compare_layers(functools.partial(simulated, case.rounded), case.file, aligned, few, kernels)


def _compare_outputs(
    case: _Case, ran: list[KernelRun], exact: Outputs, span: float, can_explain: bool
) -> tuple[float | None, list[str]]:
    """The network's sensitivity, if that is needed, and how the outputs differ.

    `can_explain` tells that bits and layers are equal, so that outputs are right if they are those of the graph.
    """
    logits = _side_by_side(exact)
    if case.rounded is not None:
        return None, [*_rewriting_errors(case, logits), *_losses(ran)]
    differing = [run for run in ran if not run.median_abs_difference < LOGIT_TOLERANCE * span]
    if not differing:
        return None, []
    sensitivity = _sensitivity(case, logits)
    wrong = [run for run in differing if not run.median_abs_difference <= SENSITIVITY_MARGIN * sensitivity]
    graph = case.graph
    if graph is not None and can_explain and all(t.index in case.aligned for t in case.file.outputs.values()):
        wrong = [run for run in wrong if not _computes_graph(case.file, graph, case.inputs, run.kernel, span)]
    tied = ties(case.reference, case.inputs) if wrong and can_explain else []
    return sensitivity, _output_failures(wrong, span, sensitivity, padded_with_zeros(case.reference), tied)


def _not_rebuilt(options: Options | None, rebuilt: Rebuilt | None) -> str | None:
    if options is None:
        return "kbnn did not make it"
    return None if rebuilt is None else rebuilt.reason


def _wrong_description(file: File, expected: Description | None) -> str | None:
    """How the labels of a file differ from those of a data set, and its normalization, if the data set is the same."""
    if expected is None:
        return None
    found = description_of(file)
    if found is not None and found.dataset and found.dataset == expected.dataset:
        wrong = [
            name
            for name in ("labels", "mean", "std", "resize", "square")
            if getattr(found, name) != getattr(expected, name)
        ]
        return f"its {' and '.join(wrong)} are not those of data set '{expected.dataset}'" if wrong else None
    labels = metadata.labels(file) if found is None else list(found.labels)
    if labels == list(expected.labels) or sorted(labels) != sorted(expected.labels):
        return None
    return f"its labels are those of data set '{expected.dataset}', in another order"


def inputs_by_name(reference: Reference, images: Images) -> dict[str, np.ndarray]:
    """The images by input name, checked against the model.

    Raises:
        UsageError: images of another shape, none, or with values that are not finite.
    """
    names = list(reference.signature)
    if isinstance(images, Mapping):
        given = {name: np.asarray(images[name]) for name in names if name in images}
    else:
        arrays = images if isinstance(images, list | tuple) else [images]
        given = dict(zip(names, map(np.asarray, arrays), strict=False))
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(
            f"the model has {len(names)} inputs ({', '.join(map(repr, names))}): received no images for "
            f"{', '.join(map(repr, missing))}, pass a dictionary with an array for each of them, in Python"
        )
    for name, spec in reference.signature.items():
        received = given[name].shape
        if not received or received[1:] != tuple(spec.shape[1:]) or not received[0]:
            expected = ", ".join(map(str, ("N", *spec.shape[1:])))
            raise UsageError(f"the images do not fit input '{name}': received shape {received}, expected ({expected})")
        if not np.isfinite(given[name]).all():
            raise UsageError(f"the images for input '{name}' contain NaN or infinity: give finite values")
    return {name: given[name].astype(spec.dtype.as_numpy_dtype) for name, spec in reference.signature.items()}


def _inputs(reference: Reference, file: File, images: Images) -> dict[str, np.ndarray]:
    """The images by input name, in the file's order, checked against the model and the file."""
    given, names = inputs_by_name(reference, images), list(reference.signature)
    # The inputs of a file not made by kbnn may have other names; then their order decides.
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
    flat = [np.reshape(outputs[name], (len(outputs[name]), -1)) for name in sorted(outputs)]
    # Booleans cannot be subtracted, and differences of unsigned integers wrap around.
    return np.concatenate([x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64) for x in flat], axis=1)


def _run(
    file: File, inputs: Mapping[str, np.ndarray], expected: Outputs, kernel: str
) -> tuple[KernelRun, Outputs | None]:
    """Runs a file end to end on one kernel; also returns the outputs, None if the kernel refuses the file."""
    try:
        outputs = interpreter.run(file.data, list(inputs.values()), kernel=kernel)
    except interpreter.UnsupportedKernelError as error:
        return KernelRun(kernel, str(error), 0.0, 0.0, 0.0, 0.0), None
    found = _by_output(dict(zip(file.outputs, outputs, strict=True)), expected)
    # NaN and infinity differ from every value.
    with np.errstate(invalid="ignore"):
        largest = np.abs(_side_by_side(found).astype(np.float64) - _side_by_side(expected)).max(1)
    largest = np.where(np.isfinite(largest), largest, np.inf)
    figures = (float(largest.max()), float(largest.mean()), float(np.median(largest)))
    return KernelRun(kernel, None, least(agreements(expected, found)), *figures), found


def _by_output(found: Outputs, expected: Outputs) -> Outputs:
    """A file's outputs by Keras's names; if the file has other names, both are matched in alphabetical order."""
    names = sorted(expected)
    if set(found) != set(names):
        found = dict(zip(names, (found[name] for name in sorted(found)), strict=False))
    received = {name: found[name].shape[1:] for name in names if name in found}
    wanted = {name: expected[name].shape[1:] for name in names}
    if received != wanted:
        raise KbnnError(f"the file was made of another model: its outputs are {received}, the model's {wanted}")
    return {name: found[name] for name in names}


def _rounding(exact: Outputs, rounded: Outputs) -> Rounding:
    largest = np.abs(_side_by_side(rounded) - _side_by_side(exact)).max(1)
    return Rounding(least(agreements(exact, rounded)), float(largest.max()), float(np.median(largest)))


def _disagreements(expected: Outputs, predicted: Outputs) -> list[Disagreement]:
    """The images that are put into another class, for a network with one output that classifies images."""
    if len(expected) != 1:
        return []
    (values,), (predictions,) = expected.values(), predicted.values()
    logits, found = class_scores(values), class_scores(predictions, like=values)
    if logits is None or found is None or logits.ndim != 2:
        return []
    keras, file = logits.argmax(1), found.argmax(1)
    return [
        Disagreement(int(k), int(keras[k]), int(file[k]), float(logits[k, keras[k]]) - float(logits[k, file[k]]))
        for k in np.flatnonzero(keras != file)
    ]


def _failures(kernels: list[KernelBits], layers: list[LayerParity]) -> list[str]:
    """Describes the kernels and the layers that differ."""
    found = []
    for kernel in kernels:
        if kernel.differing is None:
            found.append(f"layer '{kernel.name}' is not bitpacked in the file")
        elif kernel.differing:
            found.append(f"layer '{kernel.name}': {kernel.differing} of {kernel.bits} kernel bits differ from Keras's")
    for name in dict.fromkeys(layer.name for layer in layers if not layer.passed):
        worst = [layer for layer in layers if layer.name == name and not layer.passed]
        on = ", ".join(dict.fromkeys(layer.kernel for layer in worst))
        found.append(
            f"layer '{name}' differs from Keras by {max(layer.difference for layer in worst):.1e} of its range and in "
            f"{max(layer.flips for layer in worst)} signs (kernels: {on})"
        )
    return found


def _output_failures(
    wrong: list[KernelRun], span: float, sensitivity: float, padded: list[str], tied: list[str]
) -> list[str]:
    if not wrong:
        return []
    names = " and ".join(run.kernel for run in wrong)
    worst = max(run.median_abs_difference for run in wrong)
    difference = (
        f"the outputs of the {names} kernel{'s' * (len(wrong) > 1)} differ from Keras's by {worst / span:.1e} of their "
        f"range for the median image; Keras's own change by {sensitivity / span:.1e} when the images change by "
        f"{PERTURBATION:.0e}"
    )
    found = [difference]
    if padded and all(run.kernel != "reference" for run in wrong):
        names = ", ".join(f"'{name}'" for name in padded)
        found.append(
            f"LCE's optimized kernels round sums that are exactly 0 in layers padded with zeros ({names}): use "
            f"pad_values=1.0, or train the network, whose batch normalizations then shift the sums"
        )
    elif tied:
        found.append(
            f"every layer by itself is equal, but inputs of {', '.join(map(repr, tied))} are so close to 0 that "
            f"rounding decides their signs: train the network, whose batch normalizations then shift these values"
        )
    return found


def _computes_graph(file: File, graph: Graph, inputs: Mapping[str, np.ndarray], kernel: str, span: float) -> bool:
    """Whether a file's outputs are those of the rewritten graph, computed by TensorFlow.

    With kernels of ±s, Keras turns sums that should be 0 into rounding errors of either sign, which the next layer's
    sign makes visible. The graph and the file add integers. If its layers are equal to Keras's, such a file is right.
    """
    found = simulated(graph, inputs, list(graph.outputs.values()))
    run, _ = _run(file, inputs, dict(zip(graph.outputs, found, strict=True)), kernel)
    return run.median_abs_difference < LOGIT_TOLERANCE * span


def _sensitivity(case: _Case, logits: np.ndarray) -> float:
    """How far Keras's logits of the median image move when the images change as little as by rounding."""
    generator = np.random.default_rng(0)
    changed = {name: _changed(array, generator) for name, array in case.inputs.items()}
    return float(np.median(np.abs(_side_by_side(case.reference.logits(changed)) - logits).max(1)))


def _changed(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if not np.issubdtype(images.dtype, np.floating):
        return images
    noise = generator.uniform(-1, 1, images.shape) * PERTURBATION * np.ptp(images)
    return (images + noise).astype(images.dtype)


def _rewriting_errors(case: _Case, logits: np.ndarray) -> list[str]:
    """How the unrounded graph differs from Keras; a file in int8 is compared with the graph instead of with Keras."""
    graph = deploy(case.reference, replace(case.options or Options(), limits={}))
    outputs = simulated(graph, case.inputs, list(graph.outputs.values()))
    largest = np.abs(_side_by_side(dict(zip(graph.outputs, outputs, strict=True))) - logits).max(1)
    if np.median(largest) < LOGIT_TOLERANCE * (np.ptp(logits) or 1.0):
        return []
    if np.median(largest) <= SENSITIVITY_MARGIN * _sensitivity(case, logits):
        return []
    return [
        f"the outputs of the rewritten network differ from Keras's by {np.median(largest):.1e} for the median image"
    ]


def _losses(ran: list[KernelRun]) -> list[str]:
    return [
        f"rounding to int8 leaves {run.top1_agreement:.0%} of the images in Keras's class on the {run.kernel} kernel: "
        f"calibrate on images prepared as the network will see them, or keep the activations in float"
        for run in ran
        if run.top1_agreement < INT8_AGREEMENT
    ]


def _run_row(run: KernelRun, has_classes: bool) -> tuple[object, ...]:
    if run.refused is not None:
        return run.kernel, run.refused, "", "", ""
    figures = (run.max_abs_difference, run.mean_abs_difference, run.median_abs_difference)
    agreement = f"{run.top1_agreement:.2%}" if has_classes else "no classes"
    return run.kernel, agreement, *(f"{figure:.2e}" for figure in figures)
