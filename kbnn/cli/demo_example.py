"""`kbnn demo --model`: runs a pretrained file that ships with kbnn on images that ship with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbnn import tables
from kbnn.analysis import pictures
from kbnn.analysis.page import Page, Section, Table

if TYPE_CHECKING:
    from kbnn.converters.benchmark.report import BenchmarkComparison
    from kbnn.converters.tflite.audit import Audit
    from kbnn.examples import Example, Samples


@dataclass(frozen=True)
class ExampleDemo:
    """Results of a pretrained file, which classifies `right` of `shown` sample images correctly."""

    name: str
    path: str
    report: str
    dataset: str
    shown: int
    right: int
    test_top1: float
    epochs: int
    audit: "Audit"
    latencies: "BenchmarkComparison"

    def __str__(self) -> str:
        from kbnn.cli.demo import milliseconds

        (measured,) = self.latencies.reports
        facts = [
            ("file", f"{self.path}, {tables.size(self.audit.size_bytes)}"),
            ("1-bit convolutions", f"{len(self.audit.binary_convolutions)}, {self.audit.share} of all MACs"),
            ("sample images", f"{self.right} of {self.shown} correct"),
            ("whole test set", f"{self.test_top1:.2%} of {self.dataset}, measured after training"),
            ("training", f"{self.epochs} epochs"),
            ("latency here (not ARM)", milliseconds(measured)),
        ]
        return f"{tables.render((self.name, ''), facts)}\n\nreport: {self.report}"


@dataclass(frozen=True)
class ExampleListing:
    """The pretrained files that ship with kbnn."""

    examples: "tuple[Example, ...]"

    def __str__(self) -> str:
        rows = [
            (example.name, example.dataset, f"{example.test_top1:.2%}", tables.size(example.path.stat().st_size))
            for example in self.examples
        ]
        return tables.render(("example", "data set", ">top-1", ">size"), rows)


def listing() -> ExampleListing:
    """Lists the pretrained files."""
    from kbnn import examples

    return ExampleListing(tuple(examples.get(name) for name in examples.names()))


def check_name(name: str) -> None:
    """Raises UsageError for an unknown name, without loading anything else."""
    from kbnn import examples

    examples.get(name)


def run(name: str, output: Path) -> ExampleDemo:
    """Runs a pretrained file, and writes a report into the folder `output`.

    Raises:
        UsageError: an unknown name; the closest names are suggested.
        KbnnError: the file is damaged, or this platform has no interpreter for it.
    """
    from kbnn import converters, examples
    from kbnn.converters.benchmark import compare
    from kbnn.converters.tflite import interpreter

    example = examples.get(name)
    samples = examples.samples(example.dataset)
    predictions = interpreter.run(example.path.read_bytes(), [samples.inputs])[0].argmax(-1)
    demo = ExampleDemo(
        name=name,
        path=str(example.path),
        report=str(output / "report.html"),
        dataset=example.dataset,
        shown=len(samples.labels),
        right=int((predictions == samples.labels).sum()),
        test_top1=example.test_top1,
        epochs=example.epochs,
        audit=converters.inspect(example.path),
        latencies=compare([example.path], runs=200),
    )
    _page(demo, samples, predictions).write(demo.report)
    return demo


def _page(demo: ExampleDemo, samples: "Samples", predictions: np.ndarray) -> Page:
    titles = [
        samples.classes[seen] if seen == true else f"{samples.classes[seen]}?"
        for seen, true in zip(predictions, samples.labels, strict=True)
    ]
    caption = (
        f"The file's prediction for {demo.shown} test images, the first ones of each class. A question mark marks "
        f"wrong ones ({demo.shown - demo.right} of {demo.shown})."
    )
    layers = [
        (c.name, "1" if c.is_binary else str(c.bits), "x".join(map(str, c.kernel)), f"{c.macs:,}")
        for c in [*demo.audit.binary_convolutions, *demo.audit.float_convolutions]
    ]
    return Page(
        title=f"kbnn demo: {demo.name}",
        summary=(
            f"{tables.size(demo.audit.size_bytes)}, {len(demo.audit.binary_convolutions)} one-bit convolutions, "
            f"top-1 {demo.test_top1:.2%} on the {demo.dataset} test set after {demo.epochs} epochs of training."
        ),
        sections=(
            Section("Images and predictions", pictures=[pictures.gallery(samples.images, titles, caption)]),
            Section("The file", tables=[Table(("layer", ">bits", ">kernel", ">MACs"), layers, "Convolutions.")]),
        ),
    )
