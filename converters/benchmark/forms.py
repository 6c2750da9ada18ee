"""Measures every form in which a network can be deployed, and recommends one."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbnn import files, tables
from kbnn.converters.benchmark.driver import Job, Progress, compare_jobs, default_kernel
from kbnn.converters.benchmark.report import BenchmarkOptions, BenchmarkReport
from kbnn.converters.forms import ORDINARY, Form, forms_on_devices
from kbnn.converters.tflite import audit, flatbuffer, interpreter
from kbnn.converters.verify.agreement import agreements, least
from kbnn.errors import KbnnError

if TYPE_CHECKING:
    import tensorflow as tf

# A form that agrees less with the trained network is not recommended.
ENOUGH_AGREEMENT = 0.97
# Latencies with a smaller relative difference count as equal, and the smaller file wins.
_EQUAL = 0.03
# Why a file with groups is not measured on the default kernel.
_NO_GROUPS = "the default kernel does not support grouped binary convolutions"


@dataclass(frozen=True)
class MeasuredForm:
    """A form on a device. `agreement` is the share of images that the trained network puts into the same class.

    Networks without 1-bit layers, which the forms are compared with, have no agreement and are never recommended.
    `command` are the options of `kbnn convert`, and `kernel` is the runtime's kernel for binary convolutions. If the
    network cannot be converted to this form, `report` is None and `refusal` tells why.
    """

    name: str
    command: str
    kernel: str
    size_bytes: int | None
    agreement: float | None
    report: BenchmarkReport | None
    refusal: str = ""


@dataclass(frozen=True)
class FormComparison(tables.Shown):
    """All forms of a network; `recommended` is the name of the best one with its kernel, and `reason` tells why."""

    forms: tuple[MeasuredForm, ...]
    recommended: str | None
    reason: str

    def __str__(self) -> str:
        measured = [form for form in self.forms if form.report is not None]
        rows = [
            (
                form.name,
                form.kernel,
                tables.size(form.size_bytes or 0),
                _milliseconds(form),
                _spread(form),
                "" if form.agreement is None else f"{form.agreement:.1%}",
                form.command or "(default)",
            )
            for form in measured
        ]
        columns = ("form", "kernel", ">size", ">median of means", ">spread", ">same class", "kbnn convert")
        lines = [tables.render(columns, rows)] if rows else []
        lines += [f"{form.name}: {form.refusal}" for form in self.forms if form.report is None]
        warnings = {text: None for form in measured if form.report for text in form.report.warnings}
        best = f"recommended: {self.recommended}, {self.reason}" if self.recommended else f"no form: {self.reason}"
        return "\n".join([*lines, *warnings, "", best])


def compare_forms(
    model: "tf.keras.Model",
    images: np.ndarray,
    calibration: np.ndarray | None,
    target: str,
    tool: str | os.PathLike[str],
    settings: BenchmarkOptions,
    kernel: str | None = None,
    progress: Progress = lambda line: None,
) -> FormComparison:
    """Converts a network to every form, and measures them on a device, interleaved.

    Args:
        model: the trained network.
        images: network input `(N, H, W, C)`, on which forms are compared with the trained network.
        calibration: network input for the int8 forms, which are left out without it.
        target: where to measure; see `benchmark`.
        tool: the tool that measures; see `benchmark`.
        settings: the options of the tool; the kernel in it is ignored.
        kernel: the kernel to measure; by default every kernel that runs a form.
        progress: called with each line of progress.

    Raises:
        KbnnError: no form can be converted, or the target or the tool fails.
    """
    trained = _Trained.of(model, images)
    with files.scratch() as folder:
        paths, refused = _written(forms_on_devices(_is_grouped(model)), model, images, calibration, folder, progress)
        if not paths:
            raise KbnnError(f"no form of '{model.name}' can be converted: {'; '.join(f.refusal for f in refused)}")
        twins = [twin for twin in ORDINARY if calibration is not None or not twin.is_calibrated]
        twin_paths, refused_twins = _written(twins, model, images, calibration, folder, progress)
        paths, refused = [*paths, *twin_paths], [*refused, *refused_twins]
        return _measured(paths, refused, trained, target, tool, settings, kernel, progress)


def _written(
    forms: Sequence[Form],
    model: "tf.keras.Model",
    images: np.ndarray,
    calibration: np.ndarray | None,
    folder: Path,
    progress: Progress,
) -> tuple[list[tuple[Form, Path]], list[MeasuredForm]]:
    """Writes each form to a file in a folder; also returns the forms that are refused."""
    paths: list[tuple[Form, Path]] = []
    refused: list[MeasuredForm] = []
    for form in forms:
        if form.is_calibrated and calibration is None:
            refused.append(_refused(form, "needs images to calibrate on"))
            continue
        path = folder / f"{form.file_name}.tflite"
        try:
            form.write(model, path, images, calibration)
        except KbnnError as error:
            refused.append(_refused(form, str(error)))
            continue
        progress(f"{form.name}: converted")
        paths.append((form, path))
    return paths, refused


def _measured(
    paths: Sequence[tuple[Form, Path]],
    refused: Sequence[MeasuredForm],
    trained: "_Trained",
    target: str,
    tool: str | os.PathLike[str],
    settings: BenchmarkOptions,
    kernel: str | None,
    progress: Progress,
) -> FormComparison:
    kernels = {path: _kernels(path, default_kernel(tool)) for _, path in paths}
    if kernel:
        not_run = [form for form, path in paths if kernel == "default" and _has_groups(path)]
        refused = [*refused, *(_refused(form, _NO_GROUPS) for form in not_run)]
        kernels = {path: [] if form in not_run else [kernel] for form, path in paths}
    wanted = [(form, path, each) for form, path in paths for each in kernels[path]]
    if not any(form.is_binary for form, _, _ in wanted):
        raise KbnnError(f"no form runs on the {kernel} kernel: {_NO_GROUPS}")
    # The files are temporary, so reports and messages name the forms instead.
    jobs = [Job(path, dataclasses.replace(settings, kernel=each), form.name) for form, path, each in wanted]
    comparison = compare_jobs(jobs, target, tool, progress=progress)
    agreement = {path: trained.agreement(path) if form.is_binary else None for form, path in paths}
    found = [
        MeasuredForm(form.name, form.options, each, path.stat().st_size, agreement[path], report)
        for (form, path, each), report in zip(wanted, comparison.reports, strict=True)
    ]
    return FormComparison((*found, *refused), *_recommended(found))


def _refused(form: Form, why: str) -> MeasuredForm:
    return MeasuredForm(form.name, form.options, "", None, None, None, why)


def _is_grouped(model: "tf.keras.Model") -> bool:
    from kbnn import structure

    binary = filter(structure.has_binary_kernel, structure.layers(model))
    return any(getattr(layer, "groups", 1) > 1 for layer in binary)


def _kernels(path: Path, usual: str) -> list[str]:
    """The kernels that run a file; the default kernel does not support grouped convolutions."""
    if not audit.inspect(path).binary_convolutions:
        return [usual]
    if usual == "indirect" or _has_groups(path):
        return ["indirect"]
    return ["default", "indirect"]


def _has_groups(path: Path) -> bool:
    return any(convolution.groups > 1 for convolution in audit.inspect(path).binary_convolutions)


@dataclass(frozen=True)
class _Trained:
    """The outputs of the trained network for images, which forms are compared with."""

    images: np.ndarray
    outputs: np.ndarray
    is_logit: bool

    @staticmethod
    def of(model: "tf.keras.Model", images: np.ndarray) -> "_Trained":
        outputs = np.asarray(model.predict(images, verbose=0))
        return _Trained(images, outputs, _is_logit(model, outputs))

    def agreement(self, path: Path) -> float:
        """The share of images for which a file predicts the network's class."""
        found = interpreter.run(flatbuffer.read(path).data, [self.images])[0].reshape(self.outputs.shape)
        expected = self.outputs
        if self.is_logit:
            # The second class is predicted if its logit is positive.
            expected, found = (np.where(values > 0, 1.0, 0.0) for values in (expected, found))
        return least(agreements({"output": expected}, {"output": found}))


def _is_logit(model: "tf.keras.Model", outputs: np.ndarray) -> bool:
    """Whether a network returns one logit for two classes, by the rule of `kbnn.Classifier`."""
    from kbnn.converters.classifier import is_sigmoid

    if outputs.size != len(outputs):
        return False
    ends_with_sigmoid = is_sigmoid(model)
    if ends_with_sigmoid is None:
        return bool(outputs.min() < 0 or outputs.max() > 1)
    return not ends_with_sigmoid


def _recommended(forms: Sequence[MeasuredForm]) -> tuple[str | None, str]:
    """The name of the best form with its kernel, and why it is the best."""
    agreeing = [form for form in forms if (form.agreement or 0.0) >= ENOUGH_AGREEMENT]
    if not agreeing:
        return None, f"none puts {ENOUGH_AGREEMENT:.0%} of the images into the trained network's class"
    timed = [form for form in agreeing if _mean(form) is not None]
    if not timed:
        best = min(agreeing, key=lambda form: form.size_bytes or 0)
        return f"{best.name} ({best.kernel} kernel)", "the smallest one that agrees; latencies are withheld here"
    fastest = min(_mean(form) or 0.0 for form in timed)
    close = [form for form in timed if (_mean(form) or 0.0) <= (1 + _EQUAL) * fastest]
    best = min(close, key=lambda form: form.size_bytes or 0)
    why = (
        "the fastest one that agrees"
        if len(close) == 1
        else f"the smallest of those within {_EQUAL:.0%} of the fastest"
    )
    if best.report is not None and not best.report.timing_valid:
        why += "; the figures are not valid, see above"
    return f"{best.name} ({best.kernel} kernel)", why


def _mean(form: MeasuredForm) -> float | None:
    return None if form.report is None else form.report.summary.median_of_means_us


def _milliseconds(form: MeasuredForm) -> str:
    mean = _mean(form)
    return "withheld" if mean is None else f"{mean / 1000:.3f} ms"


def _spread(form: MeasuredForm) -> str:
    spread = None if form.report is None else form.report.summary.spread
    return "withheld" if spread is None else f"{spread:.1%}"
