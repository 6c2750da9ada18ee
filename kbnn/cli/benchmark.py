"""`kbnn benchmark`: latencies of .tflite files."""

from pathlib import Path

import click

from kbnn.cli.command import Command, json_option, show


@click.command(cls=Command)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--target", default="local", show_default=True, help="Where to measure: local, this machine.")
@click.option(
    "--tool", default="python", show_default=True, help="What runs the file: python, LCE's interpreter on this machine."
)
@click.option("--threads", default=1, show_default=True, help="Threads of one inference.")
@click.option("--warmup", default=10, show_default=True, help="Inferences before the measured ones.")
@click.option("--runs", default=50, show_default=True, help="Measured inferences of one process.")
@click.option("--repeats", default=5, show_default=True, help="Processes per file.")
@click.option(
    "--kernel",
    type=click.Choice(["default", "indirect", "reference"]),
    help="Binary convolution kernel. [default: indirect for the Python interpreter]",
)
@json_option
def command(files: tuple[Path, ...], as_json: bool, **options: object) -> None:
    """Measure the latency of .tflite files, side by side when several are given.

    \b
    Example:
      kbnn benchmark binary.tflite float32.tflite int8.tflite --repeats 5
    """
    from kbnn.converters.benchmark import compare

    comparison = compare(files, **options)  # type: ignore[arg-type]
    result = comparison if len(files) > 1 else comparison.reports[0]
    show(result, as_json)
