"""Converts a Keras model to a bitpacked .tflite file, or tells why that is not possible."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn import files, tables
from kbnn.converters.errors import ConversionError
from kbnn.converters.graph.binary_layers import binary_calls
from kbnn.converters.graph.graph import Graph
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.trace import Reference, signature
from kbnn.converters.passes import Options, deploy, with_passes
from kbnn.converters.passes.forms import ESTIMATED_LIKE, kernel_for, with_forms
from kbnn.converters.passes.int8 import calibrated
from kbnn.converters.tflite import audit, flatbuffer, operators
from kbnn.converters.tflite.audit import Audit
from kbnn.converters.tflite.building import build
from kbnn.converters.tflite.flatbuffer import File, Operator
from kbnn.converters.tflite.metadata import Description
from kbnn.converters.verify import verification
from kbnn.converters.verify.diagnosis import (
    diagnose,
    invalid_outputs,
    miscomputed,
    saved_quantized,
    unconvertible,
)
from kbnn.converters.verify.kernel_bits import find_packed
from kbnn.converters.verify.verification import Images, Parity, inputs_by_name
from kbnn.errors import UsageError, unknown
from kbnn.precision import in_float32
from kbnn.structure import binary_layers, is_binary

_IMAGES = 32


@dataclass(frozen=True)
class Artifact(tables.Shown):
    """What `convert` wrote, its audit, and its parity with Keras.

    `note` tells which form was taken where there was a choice.
    """

    path: str
    size_bytes: int
    audit: Audit
    parity: Parity
    note: str = ""

    def __str__(self) -> str:
        audit, parity = self.audit, self.parity
        return (
            f"{self.path}: {parity.with_trained}\n"
            f"{tables.size(self.size_bytes)}, {len(audit.binary_convolutions)} binary convolutions "
            f"({audit.share} of all MACs); equal to {parity.compared_with}: kernel bits all, "
            f"layers within {max((layer.difference for layer in parity.layers), default=0):.0e} of their range, "
            f"logits of the median image within {parity.median_abs_difference / parity.logit_range:.0e}\n"
            f"estimated instructions, not a latency: {audit.instructions_text}"
            + (f"\n{self.note}" if self.note else "")
            + "".join(f"\nLCE's {run.kernel} kernel refuses it: {run.refused}" for run in parity.runs if run.refused)
        )


def convert(
    model: tf.keras.Model,
    path: str | os.PathLike[str],
    images: Images | None = None,
    *,
    kernel: str | None = None,
    device: str = "generic",
    allow_float: Sequence[str] = (),
    weights: str = "float32",
    calibration: Images | None = None,
    description: Description | None = None,
    labels: np.ndarray | None = None,
) -> Artifact:
    """Converts a model to a .tflite file in which every 1-bit layer is bitpacked, and proves that it equals Keras.

    It takes every Keras model with Larq layers. The file is written, atomically, only if it passes verification.

    Args:
        model: the trained Keras model.
        path: where to write the file.
        images: network input to verify on; by default 32 of the calibration images, or else random images.
        kernel: "grouped" keeps a grouped convolution as one operator, which LCE's default kernel does not support;
            "portable" splits it into one convolution per group, which runs everywhere. By default this depends on the
            device; "generic" uses "grouped".
        device: "pi4", "pi5" or "android" for the form with the fewest instructions there (docs/deployment.md),
            "microcontroller" for the form that C code is made from, or "generic" for one that is good everywhere.
        allow_float: names of 1-bit layers that may stay float.
        weights: "float32", or "int8" to store the weights of real-valued layers in 8 bits, or in 16 or 32 bits if signs
            depend on them, with one scale per output channel; a small stem and activations stay float. The file is then
            compared with Keras after the same rounding of its weights.
        calibration: network input like the images that the file will see. Everything real-valued, including
            activations, then becomes int8, with the ranges of these images, and the file is compared with the deployed
            graph after the same rounding. Except for "microcontroller", activations stay float if that needs no more
            instructions on the device, or on a Raspberry Pi 4 or 5 for "generic"; the artifact's note says so.
        description: what an app needs to know, such as labels and normalization; it becomes the file's metadata.
        labels: the classes of the images, to report the accuracies of the model and of the file.

    Raises:
        ConversionError: the model has no 1-bit layer, a 1-bit layer cannot be bitpacked (the message names each layer
            with the reason and the fix), the input has an unknown size, or the file does not compute the same as Keras.
        UsageError: an unknown kernel or device, a name in `allow_float` that is not a 1-bit layer, images of another
            shape, or int8 weights together with calibration, which already makes the weights int8.
        KbnnError: the file cannot be written.

    Example:
        >>> artifact = kbnn.converters.convert(model, "model.tflite")
        >>> artifact.audit.binary_share, artifact.parity.median_abs_difference
    """
    options = Options(allow_float=tuple(allow_float), weights=weights, device=device)
    if calibration is not None and weights != "float32":
        raise UsageError(f"calibration makes weights int8 too: received weights='{weights}' with it, leave that out")
    try:
        file, parity, note = _converted(model, path, images, options, kernel, calibration, description, labels)
    except tf.errors.OpError as error:
        given = "random images" if images is None and calibration is None else "the images"
        raise ConversionError(
            f"model '{model.name}' cannot be run on {given} ({_reason(error)}): give images= as it was trained on"
        ) from error
    files.write(path, file.data)
    return Artifact(os.fspath(path), file.size_bytes, audit.audit(file, os.fspath(path)), parity, note)


def _converted(
    model: tf.keras.Model,
    path: str | os.PathLike[str],
    images: Images | None,
    options: Options,
    kernel: str | None,
    calibration: Images | None,
    description: Description | None,
    labels: np.ndarray | None,
) -> tuple[File, Parity, str]:
    """The file that `convert` writes, its parity with Keras, and a note on its form."""
    keras = Reference(in_float32(model))
    told = (description or Description()).of_model(keras.model.name)
    given = _default_images(model, keras, calibration) if images is None else images
    note = ""
    if calibration is None or options.device == "microcontroller":
        options = _completed(options, keras, kernel, calibration)
        file, graph = build(keras, options, told)
    else:
        options, file, graph, note = _faster(keras, options, kernel, calibration, told)
    _check_operators(file, graph)
    _check_bitpacked(keras, file, graph, options)
    parity = verification.compare(keras, file, given, os.fspath(path), graph, labels)
    if not parity.passed:
        raise ConversionError(
            f"the file of model '{keras.model.name}' would not compute what Keras computes: "
            f"{'; '.join(parity.failures)}{_float_instead(options, calibration)}"
        )
    return file, parity, note


def _float_instead(options: Options, calibration: Images | None) -> str:
    """What to do if rounding may be the reason why a file is refused."""
    if calibration is None and options.weights == "float32":
        return ""
    rounded = "calibration" if calibration is not None else f"weights='{options.weights}'"
    return f"; rounding may be the reason: leave out {rounded}, which keeps the network in float"


def _faster(
    keras: Reference, options: Options, kernel: str | None, calibration: Images, told: Description
) -> tuple[Options, File, Graph, str]:
    """The faster of int8 activations and of float activations with int8 weights, and a sentence that says why."""
    in_float = _completed(replace(options, weights="int8"), keras, kernel, None)
    in_int8 = _completed(options, keras, kernel, calibration)
    made = [(chosen, *build(keras, chosen, told)) for chosen in (in_float, in_int8)]
    audits = [audit.audit(file) for _, file, _ in made]
    devices = ESTIMATED_LIKE[options.device]
    float_counts, int8_counts = ([found.instructions[name] / 1e6 for name in devices] for found in audits)
    unknown = sorted(set(audits[1].not_measured) - set(audits[0].not_measured))
    is_float = bool(unknown) or any(a <= b for a, b in zip(float_counts, int8_counts, strict=True))
    note = (
        f"device '{options.device}': an estimated {_millions(float_counts)} instructions with float activations and "
        f"int8 weights, {_millions(int8_counts)} with int8 activations"
        + (f" and an unknown number for {', '.join(unknown)}" if unknown else "")
        + f"; the file has {'float' if is_float else 'int8'} activations"
    )
    return (*made[0 if is_float else 1], note)


def _millions(counts: Sequence[float]) -> str:
    return " and ".join(f"{count:.2f} M" for count in counts)


def _reason(error: tf.errors.OpError) -> str:
    """The error message of an operation, without the part that tells where it was created."""
    lines = [line.strip() for line in str(error.message).splitlines()]
    places = [k for k, line in enumerate(lines) if line.startswith("[[")]
    return lines[places[0] - 1] if places and places[0] else " ".join(lines)[:200]


def _completed(options: Options, keras: Reference, kernel: str | None, calibration: Images | None) -> Options:
    """Checks that the model can be converted, and adds the kernel, the passes and the int8 ranges to the options."""
    _check_binary(keras, options)
    _check_computable(keras, options)
    lifted = lift(keras)
    options = with_forms(replace(options, kernel=kernel or kernel_for(options.device, lifted)), lifted)
    options = with_passes(options, in_int8=calibration is not None)
    return options if calibration is None else with_limits(options, keras, calibration)


def with_limits(options: Options, keras: Reference, calibration: Images) -> Options:
    """The options with the ranges that everything real-valued has on calibration images, for a file in int8."""
    return replace(options, limits=calibrated(deploy(keras, options), inputs_by_name(keras, calibration)))


def _default_images(model: tf.keras.Model, keras: Reference, calibration: Images | None) -> Images:
    """Calibration images if there are any, because random images would exceed the ranges found with them."""
    if calibration is None:
        return random_images(model)
    return {name: array[:_IMAGES] for name, array in inputs_by_name(keras, calibration).items()}


def random_images(model: tf.keras.Model) -> dict[str, np.ndarray]:
    """Standard normal input, always the same, to verify a model without its data.

    Raises:
        UsageError: an input holds integers, whose range is not known.
    """
    generator, found = np.random.default_rng(0), {}
    for name, spec in signature(model).items():
        if not spec.dtype.is_floating:
            raise UsageError(
                f"input '{name}' holds {spec.dtype.name} values, for which there are no random images: give images="
            )
        found[name] = generator.normal(size=(_IMAGES, *spec.shape[1:])).astype(np.float32)
    return found


def _check_binary(reference: Reference, options: Options) -> None:
    hidden = [layer.name for layer in reference.hidden if is_binary(layer)]
    if hidden:
        raise ConversionError(
            f"layer '{hidden[0]}' is called within a tf.function, tf.cond or loop of the model, in which layers cannot "
            f"be told apart: call it directly, without @tf.function"
        )
    model, names = reference.model, [call.name for call in binary_calls(reference)]
    unused = binary_layers(model) if not names else []
    if unused:
        raise ConversionError(
            f"model '{model.name}' does not call its 1-bit layer '{unused[0].name}' one by one, as after loading the "
            f"SavedModel of a subclassed model: build it with its own class and load the weights"
        )
    if not names:
        raise ConversionError(
            f"model '{model.name}' has no 1-bit layer: none of its {len(model.layers)} layers has a binary input and "
            f"kernel quantizer, build it with kbnn.layers.BinaryConv2D or a method of kbnn.methods"
        )
    for name in options.allow_float:
        if name not in names:
            raise unknown("1-bit layer", name, names)


def _check_computable(reference: Reference, options: Options) -> None:
    """Refuses layers that LCE cannot convert, or that it would bitpack but compute wrongly."""
    found = [*unconvertible(reference), *invalid_outputs(reference), *saved_quantized(reference.model)]
    if found:
        raise ConversionError("; ".join(found))
    reasons = {call.name: miscomputed(reference, call) for call in binary_calls(reference)}
    wrong = {name: why for name, why in reasons.items() if why is not None and name not in options.allow_float}
    if wrong:
        raise _refusal(wrong, len(reasons), "would be miscomputed")


def _check_operators(file: File, graph: Graph) -> None:
    """Refuses operators that LCE's runtime does not have, such as TensorFlow's `Erf` and `Erfc` in exact GELUs."""
    known = {*flatbuffer.builtin_names(), *audit.LCE_OPERATORS}
    layers = {node.layer for node in graph}
    missing = {}
    for operator in file.operators:
        if operator.name not in known:
            missing[operator.name] = _layer_of(file, operator, layers)
    if missing:
        named = "; ".join(f"layer '{layer}' needs the operator '{name}'" for name, layer in missing.items())
        is_exact_gelu = not {"Erf", "Erfc"}.isdisjoint(missing)
        hint = "use tf.nn.gelu(x, approximate=True)" if is_exact_gelu else "use another function"
        raise ConversionError(f"{named}, which LCE's runtime does not have: {hint}")


def _layer_of(file: File, operator: Operator, layers: set[str]) -> str:
    """The layer that an operator belongs to, by its own name or by the names of those that read its value."""
    name = operators.layer_name(file, operator)
    # A value that is only rounded to int8 has no name of its own.
    readers = file.consumers[operator.outputs[0].index]
    found = [name, *(operators.layer_name(file, reader) for reader in readers)]
    # Of the operations of one layer, the file numbers all but the first.
    candidates = [candidate for each in found for candidate in (each, each.rpartition("/")[0])]
    return next((candidate for candidate in candidates if candidate in layers), name)


def _check_bitpacked(reference: Reference, file: File, graph: Graph, options: Options) -> None:
    """Refuses a file in which a 1-bit layer is not bitpacked."""
    calls = binary_calls(reference)
    found = {part.call for part in find_packed(file, reference, graph)}
    missing = [call for k, call in enumerate(calls) if k not in found and call.name not in options.allow_float]
    if missing:
        reasons = {call.name: diagnose(reference, call) for call in missing}
        raise _refusal(reasons, len(calls), "cannot be bitpacked")


def _refusal(reasons: dict[str, str], layers: int, what: str) -> ConversionError:
    named = "; ".join(f"'{name}': {reason}" for name, reason in reasons.items())
    return ConversionError(
        f"{len(reasons)} of {layers} 1-bit layers {what}: {named}; or let them stay float: allow_float={list(reasons)}"
    )
