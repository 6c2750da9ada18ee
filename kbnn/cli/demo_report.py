"""The demo's report: what was trained, what the file is, whether it is right, how long it takes."""

from pathlib import Path
from typing import Any

import numpy as np

from kbnn import tables
from kbnn.analysis import pictures
from kbnn.analysis.page import Page, Section, Table
from kbnn.cli.demo import Demo, milliseconds

_SHOWN = 16


def page(demo: Demo, run: Any, data: Any, predictions: np.ndarray) -> Page:
    """The page of a finished demo; `predictions` are the binary file's classes of the test images."""
    count = len(demo.audit.binary_convolutions)
    return Page(
        title="kbnn demo: a binary network reads handwritten digits",
        summary=(
            f"Top-1 {demo.top1:.2%} of {demo.test_images} held-out images. All {count} one-bit convolutions are "
            f"bitpacked, in a file of {tables.size(demo.audit.size_bytes)} that computes what Keras computes."
        ),
        sections=(_training(demo, run, data), _files(demo), _parity(demo), _mistakes(data, predictions)),
    )


def _training(demo: Demo, run: Any, data: Any) -> Section:
    recipe = run.recipe
    curve = (
        f"Top-1 accuracy after each epoch on {data.train.size} training images, which are augmented, and "
        f"{data.validation.size} validation images; seed {recipe.seed}."
    )
    text = (
        f"Network {recipe.model.name}, method {recipe.model.method}, {recipe.epochs} epochs in "
        f"{demo.training_seconds:.1f} s. Weights and activations of the binary convolutions are +1 or -1; the first "
        "convolution, the shortcut that changes shape and the classifier stay real-valued."
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
        "The network bitpacked for Larq Compute Engine, and what one would deploy without binarization: the same "
        "layers with ReLU, zero padding and everything fused, as TensorFlow Lite files in float32 and int8. Their size "
        f"and time count here; their weights were not trained. {demo.audit.share} of the binary file's "
        "multiplications are of one bit."
    )
    latency_text = (
        "The latencies are this machine's. They say nothing about an ARM device, where binary convolutions are fast "
        "and here they are not: measure there with kbnn benchmark --target."
    )
    return Section(
        "The file",
        [sizes_text, latency_text],
        [
            Table(("file", ">size", ">latency on this machine"), rows, measured),
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
    listed = [Table((">image", ">Keras", ">file", ">margin in Keras"), disagreements, "Images of different classes.")]
    bits = sum(kernel.bits for kernel in parity.kernels)
    worst = max(layer.difference for layer in parity.layers)
    text = (
        f"Each of {bits:,} packed kernel bits equals Keras's. Each of {len({x.name for x in parity.layers})} layers, "
        f"fed with Keras's own input, is within {worst:.0e} of the range of its values. Of {parity.samples} test "
        f"images {len(parity.disagreements)} get another class than from Keras: one rounding can flip a sign, and a "
        "flip spreads through the layers that follow."
    )
    return Section(
        "Is the file right?",
        [text],
        [
            Table(
                ("kernel of the runtime", ">top-1 agreement", ">max", ">mean", ">median"),
                rows,
                f"Largest difference of an image's logits, whose range is {parity.logit_range:.1f}.",
            ),
            *(listed if disagreements else []),
        ],
    )


def _differences(run: Any) -> tuple[float, float, float]:
    return run.max_abs_difference, run.mean_abs_difference, run.median_abs_difference


def _mistakes(data: Any, predictions: np.ndarray) -> Section:
    wrong = np.flatnonzero(predictions != data.test.labels)
    titles = [f"{data.classes[data.test.labels[k]]} read as {data.classes[predictions[k]]}" for k in wrong]
    confusion = f"The binary file's class against the true one, {data.test.size} test images."
    shown = [pictures.confusion_matrix(data.test.labels, predictions, data.classes, confusion)]
    if len(wrong):
        caption = f"Misclassified test images ({min(len(wrong), _SHOWN)} of {len(wrong)})."
        shown.append(pictures.gallery(data.test.images[wrong[:_SHOWN]], titles[:_SHOWN], caption, columns=4))
    return Section("What it gets wrong", [f"{len(wrong)} of {data.test.size} test images."], pictures=shown)
