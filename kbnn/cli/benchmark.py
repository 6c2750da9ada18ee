"""`kbnn benchmark`: latencies of .tflite files, where the files will live."""

from pathlib import Path
from typing import Any

import click

from kbnn.cli import fail
from kbnn.cli.command import Command, json_option, show


@click.command(cls=Command)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--target",
    default="local",
    show_default=True,
    metavar="local|ssh://USER@HOST[:PORT]|adb[:SERIAL]|qemu",
    help="Where to measure. qemu emulates: it shows that a file runs, latencies are withheld.",
)
@click.option(
    "--tool",
    default="python",
    show_default=True,
    metavar="PATH|python",
    help="lce_benchmark_model for the target, from LCE's releases; python: LCE's interpreter on this machine.",
)
@click.option("--threads", default=1, show_default=True, help="Threads of one inference.")
@click.option("--warmup", default=10, show_default=True, help="Inferences before the measured ones.")
@click.option("--runs", default=50, show_default=True, help="Measured inferences of one process.")
@click.option("--repeats", default=5, show_default=True, help="Processes per file.")
@click.option(
    "--kernel",
    type=click.Choice(["default", "indirect", "reference"]),
    help="Binary convolution kernel. [default: the tool's; indirect for python]",
)
@json_option
def command(files: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Measure the latency of .tflite files, side by side when several are given.

    \b
    Example:
      kbnn benchmark binary.tflite float32.tflite int8.tflite
      kbnn benchmark binary.tflite --target ssh://pi@raspberrypi --tool lce_benchmark_model_aarch64 --json
      kbnn benchmark binary.tflite --target adb --tool lce_benchmark_model_android_arm64
    """
    from kbnn.converters.benchmark import IncompleteError, compare

    try:
        comparison = compare(files, **options, progress=lambda line: click.echo(line, err=True))
    except IncompleteError as error:
        _show(error.comparison, as_json)
        fail(str(error), error.exit_status)
        raise
    _show(comparison, as_json)


def _show(comparison: Any, as_json: bool) -> None:
    show(comparison if len(comparison.reports) > 1 else comparison.reports[0], as_json)
