"""`kbnn demo`."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn.cli.artifacts import output_folder
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import KbnnError

if TYPE_CHECKING:
    from kbnn.converters.benchmark.report import BenchmarkComparison, BenchmarkReport
    from kbnn.converters.comparison import Deployments
    from kbnn.converters.tflite.audit import Audit
    from kbnn.converters.verify.verification import Parity

GOAL = 0.97
OUTPUT = Path("runs/demo")
_NAME = "demo"


@dataclass(frozen=True)
class Demo:
    """The files and results of the demo."""

    model: str
    report: str
    test_images: int
    top1: float
    file_top1: float
    training_seconds: float
    audit: "Audit"
    parity: "Parity"
    latencies: "BenchmarkComparison"
    forms: "Deployments"

    def __str__(self) -> str:
        from kbnn import tables

        parity = self.parity
        facts = [
            ("top-1, Keras", f"{self.top1:.2%} of {self.test_images} test images"),
            ("top-1, binary file", f"{self.file_top1:.2%}"),
            ("training", f"{self.training_seconds:.1f} s"),
            ("1-bit convolutions", f"{len(self.audit.binary_convolutions)}, all bitpacked"),
            ("kernel bits", f"{sum(kernel.bits for kernel in parity.kernels):,}, all equal to Keras"),
            ("classes that differ from Keras", f"{len(parity.disagreements)} of {parity.samples}{_margins(parity)}"),
        ]
        rows = [
            (Path(report.file.path).stem, tables.size(report.file.size_bytes), milliseconds(report))
            for report in self.latencies.reports
        ]
        return "\n\n".join(
            [
                tables.render(("demo", ""), facts),
                tables.render(("file", ">size", ">latency on this machine (not ARM)"), rows),
                str(self.forms),
                f"report: {self.report}",
            ]
        )


def _margins(parity: "Parity") -> str:
    differing = ", ".join(f"image {d.image} by {d.margin:.4f}" for d in parity.disagreements)
    return f" ({differing})" if differing else ""


def milliseconds(report: "BenchmarkReport") -> str:
    """The latency in milliseconds, or "withheld" if it cannot be trusted."""
    microseconds = report.summary.median_of_means_us
    return "withheld" if microseconds is None else f"{microseconds / 1000:.3f} ms"


@click.command(cls=Command)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help=f"New or empty folder.  [default: {OUTPUT}, or the next free of {OUTPUT}-2, {OUTPUT}-3, ...]",
)
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--model", help="Run a pretrained file that ships with kbnn instead of training; `list` lists them.")
@json_option
def command(output: Path | None, epochs: int, model: str | None, as_json: bool) -> None:
    """Train a small binary network on real digits, convert it, verify the file, measure it, and write a report.

    Exits with status 1 if a check fails: top-1 below 97 %, a convolution that is not bitpacked, or a file that does not
    compute the same as Keras. Existing files are not overwritten.

    \b
    Example:
      kbnn demo
      kbnn demo --output /tmp/demo --json
      kbnn demo --model tiny-bireal-digits
    """
    if model is not None:
        from kbnn.cli import demo_example

        if model == "list":
            show(demo_example.listing(), as_json)
        else:
            demo_example.check_name(model)
            folder = output_folder(output, OUTPUT.with_name(f"{OUTPUT.name}-{model}"))
            show(demo_example.run(model, folder), as_json)
        return
    folder = output_folder(output, OUTPUT)
    import_tensorflow()
    demo = _run(folder, epochs)
    show(demo, as_json)
    if demo.top1 < GOAL:
        raise KbnnError(f"the demo's accuracy is too low: received {demo.top1:.2%}, expected {GOAL:.0%}; train longer")


def _run(output: Path, epochs: int) -> Demo:
    from kbnn import converters, training
    from kbnn.cli.demo_report import page
    from kbnn.converters.benchmark import compare
    from kbnn.converters.tflite import flatbuffer, interpreter
    from kbnn.training import evaluate

    recipe = training.Recipe.of("tiny", "bireal", "digits", epochs=epochs)
    began = time.monotonic()
    run = training.train(recipe, output / _NAME)
    seconds = time.monotonic() - began

    model, data = run.model(), run.dataset()
    images = data.inputs(data.test)
    paths = [output / f"{name}.tflite" for name in ("binary", "float32", "int8")]
    click.echo("converting and verifying on all test images", err=True)
    description = converters.Description.of(data, recipe.name, recipe.model.name)
    artifact = converters.convert(model, paths[0], images, description=description)
    converters.export_float(model, paths[1], description, ordinary=True)
    converters.export_int8(model, paths[2], data.calibration(200), description, ordinary=True)
    click.echo("comparing every form on all test images", err=True)
    forms = converters.deployments(model, data, output / "forms", description)
    click.echo("measuring latencies", err=True)
    measured = compare([*paths, *(form.path for form in forms.forms if form.path)], runs=2000)
    latencies = replace(measured, reports=measured.reports[: len(paths)])
    predictions = interpreter.run(flatbuffer.read(paths[0]).data, [images])[0].argmax(-1)

    demo = Demo(
        model=str(paths[0]),
        report=str(output / "report.html"),
        test_images=data.test.size,
        top1=evaluate(model, data).top1,
        file_top1=float((predictions == data.test.labels).mean()),
        training_seconds=seconds,
        audit=artifact.audit,
        parity=artifact.parity,
        latencies=latencies,
        forms=forms.with_latencies(measured.reports),
    )
    page(demo, run, data, predictions).write(demo.report)
    return demo
