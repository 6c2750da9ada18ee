"""Every form in which a trained network can be deployed, side by side: accuracy, agreement, size, latency.

>>> print(kbnn.converters.deployments(model, data, "forms"))
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from kbnn import structure, tables
from kbnn.converters.classifier import Classifier
from kbnn.converters.forms import FORMS
from kbnn.converters.tflite.metadata import Description
from kbnn.converters.verify.agreement import AccuracyInterval, accuracy
from kbnn.errors import KbnnError
from kbnn.precision import in_float32

if TYPE_CHECKING:
    from kbnn.converters.benchmark.report import BenchmarkReport
    from kbnn.datasets import Dataset

# Images on which each file is compared with Keras, layer by layer, when it is written.
_VERIFICATION_IMAGES = 32


@dataclass(frozen=True)
class Deployment:
    """One form of a network.

    `top1` and its 95 % interval count the images of the test set, `agreement` the share that the trained network puts
    into the same class. `path` and `size_bytes` are None for the Keras model and for a form that is refused;
    `refusal` then says why. `milliseconds` is None where no latency was measured, or none that can be trusted.
    """

    name: str
    command: str
    path: str | None
    size_bytes: int | None
    top1: AccuracyInterval | None
    agreement: float | None
    milliseconds: float | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Deployments(tables.Shown):
    """A network in Keras, then in every form, on one test set."""

    dataset: str
    samples: int
    forms: tuple[Deployment, ...]

    def __str__(self) -> str:
        columns, rows = self.cells()
        title = f"{self.dataset} test: {self.samples} images"
        refused = [f"{form.name}: {form.refusal}" for form in self.forms if form.refusal]
        return "\n".join([tables.render(columns, rows, title), *refused])

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Column names and rows of the table; latencies only where one was measured."""
        is_timed = any(form.milliseconds is not None for form in self.forms)
        columns = ("form", ">top-1", ">same class as Keras", ">size", *([">latency"] if is_timed else []), "made by")
        return columns, [_cells(form, is_timed) for form in self.forms if form.top1 is not None]

    def with_latencies(self, reports: Sequence["BenchmarkReport"]) -> "Deployments":
        """With the latencies of files that were measured; those that cannot be trusted are left out."""
        means = {report.file.path: report.summary.median_of_means_us for report in reports}
        known = {path: mean / 1000 for path, mean in means.items() if mean is not None}
        return replace(self, forms=tuple(replace(form, milliseconds=known.get(form.path or "")) for form in self.forms))


def _cells(form: Deployment, is_timed: bool) -> tuple[str, ...]:
    latency = "" if form.path is None else "withheld" if form.milliseconds is None else f"{form.milliseconds:.3f} ms"
    return (
        form.name,
        str(form.top1),
        "" if form.path is None else f"{form.agreement:.1%}",
        "" if form.size_bytes is None else tables.size(form.size_bytes),
        *([latency] if is_timed else []),
        form.command,
    )


def deployments(
    model: tf.keras.Model,
    data: "Dataset",
    folder: str | os.PathLike[str],
    description: Description | None = None,
    limit: int | None = None,
) -> Deployments:
    """Writes a network in every form, and evaluates each on a test set.

    The forms are the bitpacked file, with int8 weights, and in int8 throughout; and two twins, which compute what the
    binary network computes with TensorFlow Lite's own operators, in float32 and int8.

    Args:
        model: the trained network.
        data: its data set; training images calibrate the int8 forms.
        folder: where to write the files.
        description: what an app has to know, see `convert`; by default the labels and normalization of `data`.
        limit: the number of test images to evaluate on; by default all.

    Raises:
        ConversionError: the network cannot be bitpacked at all. A form that is refused is a row that says why.
        UsageError: the data set has images of another shape, or another number of classes.
        KbnnError: a file cannot be written or run.
    """
    structure.check_single(model)
    # One output decides between two classes.
    data.check_fits(model.input_shape[1:], max(2, model.output_shape[-1]))
    model, place = in_float32(model), Path(folder)
    inputs = data.inputs(data.test, limit)
    labels = np.asarray(data.test.labels)[: len(inputs)]
    shares = Classifier(model, data=data).probabilities(inputs)
    trained = shares.argmax(-1)
    told = description or Description.of(data, "", model.name)
    calibration = data.calibration()
    checked = inputs[:_VERIFICATION_IMAGES]
    found = [Deployment("Keras", "", None, None, accuracy({"classes": shares}, labels), 1.0)]
    for form in FORMS:
        path = place / f"{form.file_name}.tflite"
        try:
            form.write(model, path, checked, calibration, told)
        except KbnnError as error:
            if len(found) == 1:
                raise
            found.append(Deployment(form.name, form.command, None, None, None, None, refusal=str(error)))
            continue
        shares = Classifier(path, data=data).probabilities(inputs)
        agreement = float(np.mean(shares.argmax(-1) == trained))
        top1 = accuracy({"classes": shares}, labels)
        found.append(Deployment(form.name, form.command, str(path), path.stat().st_size, top1, agreement))
    return Deployments(data.name, len(inputs), tuple(found))
