"""`kbnn demo`: the whole path on real digits, from images to a report."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import KbnnError, UsageError

GOAL = 0.97
_NAME = "demo"


@dataclass(frozen=True)
class Demo:
    """What the demo made and measured."""

    model: str
    report: str
    test_images: int
    top1: float
    file_top1: float
    training_seconds: float
    audit: Any
    parity: Any
    latencies: Any

    def __str__(self) -> str:
        from kbnn import tables

        parity = self.parity
        facts = [
            ("top-1, Keras", f"{self.top1:.2%} of {self.test_images} test images"),
            ("top-1, binary file", f"{self.file_top1:.2%}"),
            ("training", f"{self.training_seconds:.1f} s"),
            ("1-bit convolutions", f"{len(self.audit.binary_convolutions)}, all bitpacked"),
            ("kernel bits", f"{sum(kernel.bits for kernel in parity.kernels):,}, all equal to Keras"),
            ("classes that differ", f"{len(parity.disagreements)} of {parity.samples}{_margins(parity)}"),
        ]
        rows = [
            (Path(report.file.path).stem, tables.size(report.file.size_bytes), milliseconds(report))
            for report in self.latencies.reports
        ]
        return "\n\n".join(
            [
                tables.render(("demo", ""), facts),
                tables.render(("file", ">size", ">latency on this machine (not ARM)"), rows),
                f"report: {self.report}",
            ]
        )


def _margins(parity: Any) -> str:
    differing = ", ".join(f"image {d.image} by {d.margin:.4f}" for d in parity.disagreements)
    return f" ({differing})" if differing else ""


def milliseconds(report: Any) -> str:
    """The latency to quote, or that there is none."""
    microseconds = report.summary.median_of_means_us
    return "withheld" if microseconds is None else f"{microseconds / 1000:.3f} ms"


@click.command(cls=Command)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="Folder."
)
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--model", help="A trained file that ships with kbnn, instead of training one; `list` names them.")
@json_option
def command(output: Path, epochs: int, model: str | None, as_json: bool) -> None:
    """Train a small binary network on real digits, convert it, prove the file equal, measure it, write a report.

    Exit status 1 when a check falls short: top-1 under 97 %, a convolution that is not bitpacked, a file that does
    not compute what Keras computes.

    \b
    Example:
      kbnn demo
      kbnn demo --output /tmp/demo --json
      kbnn demo --model tiny-bireal-digits
    """
    if model is not None:
        from kbnn.cli import demo_example

        show(demo_example.listing() if model == "list" else demo_example.run(model, output), as_json)
        return
    import_tensorflow()
    _clear(output)
    demo = _run(output, epochs)
    show(demo, as_json)
    if demo.top1 < GOAL:
        raise KbnnError(f"the demo fell short: received top-1 {demo.top1:.2%}, expected {GOAL:.0%}; train longer")


def _clear(output: Path) -> None:
    """Makes room for the demo where an earlier one, or nothing, stands."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / _NAME / "config.toml").is_file():
        raise UsageError(f"'{output}' exists and is not an earlier demo: choose another --output")
    shutil.rmtree(output)


def _run(output: Path, epochs: int) -> Demo:
    from kbnn import converters, training
    from kbnn.cli.demo_report import page
    from kbnn.cli.progress import Progress
    from kbnn.converters.benchmark import compare
    from kbnn.converters.tflite import flatbuffer, interpreter
    from kbnn.training.evaluate import evaluate

    recipe = training.Recipe.of("tiny", "bireal", "digits", epochs=epochs)
    began = time.monotonic()
    run = training.train(recipe, output / _NAME, callbacks=[Progress(recipe.epochs)])
    seconds = time.monotonic() - began

    model, data = run.model(), run.dataset()
    images = data.inputs(data.test)
    paths = [output / f"{name}.tflite" for name in ("binary", "float32", "int8")]
    click.echo("converting, and verifying on all test images", err=True)
    description = converters.Description.of(data, recipe.name, recipe.model.name)
    artifact = converters.convert(model, paths[0], images, description=description)
    converters.export_float(model, paths[1], description)
    converters.export_int8(model, paths[2], data.inputs(data.train, 200), description)
    click.echo("measuring latencies", err=True)
    latencies = compare(paths, runs=2000)
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
    )
    page(demo, run, data, predictions).write(demo.report)
    return demo
