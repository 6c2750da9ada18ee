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

        binary, *others = self.latencies.reports
        rows = [
            ("top-1 of the Keras model", f"{self.top1:.2%} of {self.test_images} test images"),
            ("top-1 of the LCE file", f"{self.file_top1:.2%}, agrees on {self.parity.top1_agreement:.2%}"),
            ("training", f"{self.training_seconds:.1f} s"),
            ("1-bit convolutions", f"{len(self.audit.binary_convolutions)}, all bitpacked"),
            ("kernel bits", "all equal to Keras" if self.parity.kernel_bits_equal else "DIFFER from Keras"),
            *(_against(binary, other) for other in others),
            ("latency", f"{_latency(binary)} on this machine, which is not the ARM device LCE is made for"),
            ("report", self.report),
        ]
        return tables.render(("demo", ""), rows)


def _against(binary: Any, other: Any) -> tuple[str, str]:
    from kbnn.tables import size

    sizes = f"{size(binary.file.size_bytes)} against {size(other.file.size_bytes)}"
    return f"size, {Path(other.file.path).stem} alternative", sizes


def _latency(report: Any) -> str:
    microseconds = report.summary.median_of_means_us
    return "withheld" if microseconds is None else f"{microseconds / 1000:.3f} ms"


@click.command(cls=Command)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="Folder."
)
@click.option("--epochs", type=click.IntRange(min=1), default=40, show_default=True)
@json_option
def command(output: Path, epochs: int, as_json: bool) -> None:
    """Train a small binary network on real digits, convert it, prove the file equal, measure it, write a report.

    Exit status 1 when a check falls short: top-1 under 97 %, a convolution that is not bitpacked, a file that does
    not compute what Keras computes.

    \b
    Example:
      kbnn demo
      kbnn demo --output /tmp/demo --json
    """
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
    from kbnn.cli.progress import Progress
    from kbnn.training.evaluate import evaluate

    recipe = training.Recipe.of("tiny", "bireal", "digits", epochs=epochs)
    began = time.monotonic()
    run = training.train(recipe, output / _NAME, callbacks=[Progress(recipe.epochs)])
    seconds = time.monotonic() - began

    model, data = run.model(), run.dataset()
    evaluation = evaluate(model, data)
    images = data.inputs(data.test)
    file = output / "tiny.tflite"
    _say("converting")
    converters.convert(model, file)
    audit = converters.inspect(file)
    _say("verifying on all test images")
    parity = converters.verify(model, file, images)
    _say("measuring")
    float32 = converters.export_float(model, output / "float32.tflite")
    int8 = converters.export_int8(model, output / "int8.tflite", data.inputs(data.train)[:200])
    latencies = converters.compare([file, float32, int8])
    predictions = converters.predict(file, images).argmax(-1)

    demo = Demo(
        model=str(file),
        report=str(output / "report.html"),
        test_images=data.test.size,
        top1=evaluation.top1,
        file_top1=float((predictions == data.test.labels).mean()),
        training_seconds=seconds,
        audit=audit,
        parity=parity,
        latencies=latencies,
    )
    from kbnn.cli.demo_report import page

    page(demo, run, data, predictions).write(demo.report)
    return demo


def _say(what: str) -> None:
    click.echo(what, err=True)
