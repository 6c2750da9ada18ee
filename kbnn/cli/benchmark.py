"""`kbnn benchmark`: latencies of .tflite files, where the files will live."""

from pathlib import Path
from typing import Any

import click

from kbnn.cli import fail
from kbnn.cli.artifacts import data_dir_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show


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
@click.option("--dataset", help="Data set by name.")
@data_dir_option
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="With --dataset: test images whose outputs are compared with those of the interpreter here.",
)
@click.option("--csv", type=click.Path(path_type=Path), help="Append the results to a CSV file.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw the time per operator type to an SVG file.")
@json_option
def command(
    files: tuple[Path, ...],
    dataset: str | None,
    data_dir: Path | None,
    images: int,
    csv: Path | None,
    picture: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the latency of .tflite files, side by side when several are given.

    \b
    Example:
      kbnn benchmark binary.tflite float32.tflite int8.tflite
      kbnn benchmark binary.tflite --target ssh://pi@raspberrypi --tool lce_benchmark_model_aarch64 --json
      kbnn benchmark binary.tflite --target adb --tool lce_benchmark_model_android_arm64 --csv phones.csv
    """
    from kbnn.converters.benchmark import IncompleteError, compare

    options["images"] = _images(dataset, data_dir, images) if dataset else None
    try:
        comparison = compare(files, **options, progress=lambda line: click.echo(line, err=True))
    except IncompleteError as error:
        _deliver(error.comparison, csv, as_json)
        fail(str(error), error.exit_status)
        raise
    _deliver(comparison, csv, as_json)
    if picture:
        _draw(comparison, picture)


def _images(dataset: str, data_dir: Path | None, count: int) -> Any:
    import_tensorflow()
    from kbnn import datasets

    data = datasets.load(dataset, data_dir=data_dir)
    return data.inputs(data.test, count)


def _deliver(comparison: Any, csv: Path | None, as_json: bool) -> None:
    from kbnn.converters.benchmark import record

    show(comparison if len(comparison.reports) > 1 else comparison.reports[0], as_json)
    if csv:
        record.append(csv, comparison)


def _draw(comparison: Any, path: Path) -> None:
    from kbnn import files
    from kbnn.converters.benchmark.picture import time_per_operator

    files.write(path, time_per_operator(comparison).light)
