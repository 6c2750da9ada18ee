"""`kbnn benchmark`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn import files
from kbnn.cli.artifacts import OutputFile, data_dir_option, load_dataset, load_model, trust_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.converters.tflite.interpreter import UnsupportedKernelError
from kbnn.errors import KbnnError, UsageError
from kbnn.printable import printable

if TYPE_CHECKING:
    import numpy as np

    from kbnn.converters.benchmark.forms import FormComparison
    from kbnn.converters.benchmark.report import BenchmarkComparison
    from kbnn.datasets import Dataset

_FORM_IMAGES = 64


@click.command(cls=Command)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--target",
    default="local",
    show_default=True,
    metavar="local|ssh://USER@HOST[:PORT]|adb[:SERIAL]|qemu",
    help="Where to measure. qemu is an emulator: it shows that a file runs, but latencies are withheld.",
)
@click.option(
    "--tool",
    default="python",
    show_default=True,
    metavar="PATH|python",
    help="lce_benchmark_model for the target, from LCE's releases; python: LCE's interpreter on this machine.",
)
@click.option("--threads", default=1, show_default=True, help="Threads per inference.")
@click.option("--warmup", default=10, show_default=True, help="Inferences before the measured ones.")
@click.option("--runs", default=50, show_default=True, help="Measured inferences per process.")
@click.option("--repeats", default=5, show_default=True, help="Processes per file.")
@click.option(
    "--kernel",
    type=click.Choice(["default", "indirect", "reference"]),
    help="Binary convolution kernel. [default: the tool's; indirect for python]",
)
@click.option(
    "--xnnpack",
    type=click.Choice(["on", "off"]),
    help="XNNPACK for operators that are not binary. [default: the tool's]",
)
@click.option(
    "--flag",
    "flags",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another flag of the tool, such as use_caching=true, which is recorded with the results; repeatable.",
)
@click.option("--dataset", help="Data set by name.")
@data_dir_option
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="With --dataset: number of test images whose outputs are compared with those of this machine's interpreter.",
)
@click.option("--forms", is_flag=True, help="Convert a model to all forms, measure them, and recommend one.")
@trust_option
@click.option("--csv", type=OutputFile("a CSV file"), help="Append the results to a CSV file.")
@click.option("--picture", type=OutputFile("an SVG file"), help="Draw where the time goes to an SVG file.")
@json_option
def command(
    files: tuple[Path, ...],
    target: str,
    tool: str,
    threads: int,
    warmup: int,
    runs: int,
    repeats: int,
    kernel: str | None,
    xnnpack: str | None,
    flags: tuple[str, ...],
    dataset: str | None,
    data_dir: Path | None,
    images: int,
    forms: bool,
    csv: Path | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Measure the latency of one or several .tflite files.

    With --forms, the argument is a run or a model file: it is converted to all forms (kernels, precisions, devices),
    all of them are measured, and one is recommended.

    \b
    Example:
      kbnn benchmark binary.tflite float32.tflite int8.tflite
      kbnn benchmark binary.tflite --target ssh://pi@raspberrypi --tool lce_benchmark_model_aarch64 --json
      kbnn benchmark binary.tflite --target adb --tool lce_benchmark_model_android_arm64 --csv phones.csv
      kbnn benchmark runs/presb18 --forms --target ssh://pi@raspberrypi --tool lce_benchmark_model_aarch64
    """
    options = _Options(target, tool, threads, warmup, runs, repeats, kernel, _flags(xnnpack, flags))
    if picture and target == "qemu":
        raise UsageError("--picture draws latencies, which --target qemu withholds: remove one of the two")
    try:
        if forms:
            if picture or csv:
                raise UsageError("--forms prints a table or JSON: remove --picture and --csv")
            show(_forms(files, dataset, data_dir, options, as_json), as_json)
            return
        comparison = _comparison(files, _images(dataset, data_dir, images), options, csv, as_json)
    except UnsupportedKernelError as error:
        raise KbnnError(f"{error} (--kernel indirect here, or --kernel portable in kbnn convert)") from error
    _deliver(comparison, csv, as_json)
    if picture:
        _draw(comparison, picture)


@dataclass(frozen=True)
class _Options:
    """Where and how to measure."""

    target: str
    tool: str
    threads: int
    warmup: int
    runs: int
    repeats: int
    kernel: str | None
    flags: dict[str, str]


def _flags(xnnpack: str | None, flags: tuple[str, ...]) -> dict[str, str]:
    """The tool's flags by name."""
    pairs = [flag.removeprefix("--").partition("=") for flag in flags]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise UsageError(f"cannot pass on the flag '{name}': give NAME=VALUE, as in --flag use_caching=true")
    if xnnpack is not None:
        pairs.append(("use_xnnpack", "=", "true" if xnnpack == "on" else "false"))
    chosen: dict[str, str] = {}
    for name, _, value in pairs:
        if chosen.setdefault(name, value) != value:
            raise UsageError(f"the flag '{name}' is given twice: received {chosen[name]} and {value}, leave one out")
    return chosen


def _comparison(
    files: tuple[Path, ...], images: "np.ndarray | None", options: _Options, csv: Path | None, as_json: bool
) -> "BenchmarkComparison":
    from kbnn.converters.benchmark import IncompleteError, compare

    try:
        return compare(
            files,
            options.target,
            options.tool,
            threads=options.threads,
            warmup=options.warmup,
            runs=options.runs,
            repeats=options.repeats,
            kernel=options.kernel,
            flags=options.flags,
            images=images,
            progress=_tell,
        )
    except IncompleteError as error:
        _deliver(error.comparison, csv, as_json)
        raise


def _forms(
    paths: tuple[Path, ...], dataset: str | None, data_dir: Path | None, options: _Options, as_json: bool
) -> "FormComparison":
    """Measures all forms of one model."""
    if len(paths) != 1 or files.suffix(paths[0]) == ".tflite":
        raise UsageError(f"--forms converts one run or model file: received {' '.join(map(str, paths))}")
    import_tensorflow()
    from kbnn.converters.benchmark import IncompleteError
    from kbnn.converters.benchmark.driver import default_kernel
    from kbnn.converters.benchmark.forms import compare_forms
    from kbnn.converters.benchmark.report import BenchmarkOptions
    from kbnn.converters.conversion import random_images

    model = load_model(paths[0])
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"--forms compares classes, so it needs a network with one input and one output: received "
            f"{len(model.inputs)} and {len(model.outputs)}; convert it, and measure its files without --forms"
        )
    data = _data(paths[0], dataset, data_dir)
    test = next(iter(random_images(model).values())) if data is None else data.inputs(data.test, _FORM_IMAGES)
    calibration = None if data is None else data.calibration()
    kernel, tool = options.kernel, options.tool
    settings = BenchmarkOptions(
        options.threads,
        options.warmup,
        options.runs,
        options.repeats,
        kernel or default_kernel(tool),
        options.flags,
    )
    try:
        return compare_forms(model, test, calibration, options.target, tool, settings, kernel, _tell)
    except IncompleteError as error:
        _deliver(error.comparison, None, as_json)
        raise


def _data(path: Path, dataset: str | None, data_dir: Path | None) -> "Dataset | None":
    """The named data set, or the one that a run was trained on; None if neither is available."""
    try:
        return load_dataset(path, dataset, data_dir)
    except KbnnError as error:
        if dataset:
            raise
        _tell(f"comparing outputs on random images, without int8 forms ({error})")
        return None


def _tell(line: str) -> None:
    click.echo(printable(line), err=True)


def _images(dataset: str | None, data_dir: Path | None, count: int) -> "np.ndarray | None":
    if dataset is None:
        return None
    import_tensorflow()
    from kbnn import datasets

    data = datasets.load(dataset, data_dir=data_dir)
    return data.inputs(data.test, count)


def _deliver(comparison: "BenchmarkComparison", csv: Path | None, as_json: bool) -> None:
    from kbnn.converters.benchmark import record

    show(comparison if len(comparison.reports) > 1 else comparison.reports[0], as_json)
    if csv:
        record.append(csv, comparison)


def _draw(comparison: "BenchmarkComparison", path: Path) -> None:
    from kbnn.converters.benchmark.picture import drawn

    files.write(path, drawn(comparison).light)
