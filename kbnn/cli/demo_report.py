"""The demo's report: training, files and latencies, verification, and mistakes."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbnn import tables
from kbnn.analysis import pictures
from kbnn.analysis.judgement import confusion, test_images
from kbnn.analysis.page import Page, Section, Table
from kbnn.cli.demo import Demo, milliseconds

if TYPE_CHECKING:
    from kbnn.converters.verify.verification import KernelRun
    from kbnn.datasets import Dataset
    from kbnn.training import Run

_SHOWN = 16


def page(demo: Demo, run: "Run", data: "Dataset", predictions: np.ndarray) -> Page:
    """The report of a finished demo; `predictions` are the binary file's classes for the test images."""
    count = len(demo.audit.binary_convolutions)
    return Page(
        title="kbnn demo: a binary network for handwritten digits",
        summary=(
            f"Top-1 accuracy {demo.top1:.2%} on {demo.test_images} test images. All {count} binary convolutions are "
            f"bitpacked, and the file of {tables.size(demo.audit.size_bytes)} is verified against Keras."
        ),
        sections=(_training(demo, run, data), _files(demo), _parity(demo), _mistakes(data, predictions)),
    )


def _training(demo: Demo, run: "Run", data: "Dataset") -> Section:
    recipe = run.recipe
    curve = (
        f"Top-1 accuracy after each epoch on {data.train.size} augmented training images and {data.validation.size} "
        f"validation images; seed {recipe.seed}."
    )
    text = (
        f"Network {recipe.model.name}, method {recipe.model.method}, {recipe.epochs} epochs in "
        f"{demo.training_seconds:.1f} s. Weights and activations of the binary convolutions are +1 or -1; the first "
        "convolution, the projection shortcut and the classifier are real-valued."
    )
    return Section(
        "Training",
        [text],
        pictures=[pictures.training_curve(run.history(), curve)],
    )


def _files(demo: Demo) -> Section:
    reports = demo.latencies.reports
    sizes = {Path(report.file.path).stem: report.file.size_bytes / 1000 for report in reports}
    rows = [
        (Path(report.file.path).name, tables.size(report.file.size_bytes), milliseconds(report)) for report in reports
    ]
    first = reports[0]
    measured = (
        f"{first.target.description}; {first.settings.threads} thread, median over {first.settings.repeats} processes "
        f"of the mean of {first.settings.runs} inferences"
    )
    columns, forms = demo.forms.cells()
    compared = (
        f"The network in every form, on the same {demo.forms.samples} test images; top-1 with its 95 % interval. The "
        f"twins compute what the binary network computes, with TensorFlow Lite's own operators. Latencies as above."
    )
    layers = [
        (
            c.name,
            "1" if c.is_binary else str(c.bits),
            "x".join(map(str, c.kernel)),
            f"{c.macs:,}",
            tables.size(c.weight_bytes),
        )
        for c in [*demo.audit.binary_convolutions, *demo.audit.float_convolutions]
    ]
    sizes_text = (
        "The network bitpacked for Larq Compute Engine, compared with an ordinary network of the same layers, with "
        "ReLU, zero padding and fused operators, as TensorFlow Lite files in float32 and int8. Those two are for "
        f"comparing size and latency only; their weights are not trained. {demo.audit.share} of the binary file's "
        "multiply-accumulates are binary."
    )
    latency_text = (
        "The latencies were measured on this machine and do not predict those of ARM devices, for which the binary "
        "kernels are optimized. Measure on a device with kbnn benchmark --target."
    )
    return Section(
        "The file",
        [sizes_text, latency_text],
        [
            Table(("file", ">size", ">latency on this machine"), rows, measured),
            Table(columns, forms, compared),
            Table(("layer", ">bits", ">kernel", ">MACs", ">weights"), layers, "Convolutions and dense layers."),
        ],
        [pictures.bars(sizes, "kB", "Size of the file on disk.")],
    )


def _parity(demo: Demo) -> Section:
    parity = demo.parity
    rows = [
        (run.kernel, f"{run.top1_agreement:.2%}", *(f"{value:.2e}" for value in _differences(run)))
        for run in parity.runs
    ]
    disagreements = [(d.image, d.keras, d.file, f"{d.margin:.4f}") for d in parity.disagreements]
    listed = [Table((">image", ">Keras", ">file", ">margin in Keras"), disagreements, "Images whose classes differ.")]
    bits = sum(kernel.bits for kernel in parity.kernels)
    worst = max(layer.difference for layer in parity.layers)
    text = (
        f"All {bits:,} packed kernel bits are equal to Keras. Given the same inputs as in Keras, the outputs of all "
        f"{len({x.name for x in parity.layers})} layers are within {worst:.0e} of Keras's, relative to their range. "
        f"The predicted class differs for {len(parity.disagreements)} of {parity.samples} test images: rounding can "
        "flip a sign, and the flip propagates through the following layers."
    )
    return Section(
        "Verification against Keras",
        [text],
        [
            Table(
                ("kernel of the runtime", ">top-1 agreement", ">max", ">mean", ">median"),
                rows,
                f"Maximum, mean and median over images of the largest difference of a logit; the logits' range is "
                f"{parity.logit_range:.1f}.",
            ),
            *(listed if disagreements else []),
        ],
    )


def _differences(run: "KernelRun") -> tuple[float, float, float]:
    return run.max_abs_difference, run.mean_abs_difference, run.median_abs_difference


def _mistakes(data: "Dataset", predictions: np.ndarray) -> Section:
    wrong = np.flatnonzero(predictions != data.test.labels)
    titles = [f"{data.classes[data.test.labels[k]]}, predicted {data.classes[predictions[k]]}" for k in wrong]
    counts = confusion(data.test.labels, predictions, len(data.classes))
    counted = f"Actual class and the binary file's prediction, {data.test.size} test images."
    shown = [pictures.confusion_matrix(counts, data.classes, counted)]
    if len(wrong):
        caption = f"Misclassified test images ({min(len(wrong), _SHOWN)} of {len(wrong)})."
        images = test_images(data, wrong[:_SHOWN])
        shown.append(pictures.gallery(images, titles[:_SHOWN], caption, columns=4))
    return Section("Mistakes", [f"{len(wrong)} of {data.test.size} test images are misclassified."], pictures=shown)
