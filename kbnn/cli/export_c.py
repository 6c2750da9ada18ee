"""`kbnn export-c`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn import files
from kbnn.cli.artifacts import (
    artifact_name,
    check_classes,
    data_dir_option,
    load_dataset,
    load_model,
    recipe_name,
    trust_option,
)
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import KbnnError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from kbnn.converters.tflite.metadata import Description


@click.command(cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--name", help="Prefix of all names in the code, a C identifier; by default the model's name.")
@click.option(
    "--calibrate", metavar="DATA", help="Data set or folder of images for the calibration.  [default: a run's own]"
)
@click.option("--max-ram", type=click.IntRange(min=0), metavar="BYTES", help="Fail if the arena is larger than this.")
@click.option("--tflm", is_flag=True, help="Add LCE's operators for TensorFlow Lite Micro, over the same kernels.")
@click.option("--check", is_flag=True, help="Compile with this machine's compiler and run the self-test.")
@data_dir_option
@trust_option
@json_option
def command(
    source: Path,
    output: Path,
    name: str | None,
    calibrate: str | None,
    max_ram: int | None,
    tflm: bool,
    check: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Write a network as C for microcontrollers, equal bit for bit to its int8 .tflite file.

    SOURCE is a run's folder, a .keras file, or a .tflite file from
    `kbnn convert --int8 --device microcontroller`.

    \b
    Example:
      kbnn export-c runs/resnet20-bireal-cifar10 -o firmware/
      kbnn export-c model.keras -o firmware/ --name net --calibrate photos/ --check
      kbnn export-c int8.tflite -o firmware/ --max-ram 24000
    """
    if calibrate or files.suffix(source) != ".tflite":
        import_tensorflow()
    from kbnn.converters.c.export import check as run_check
    from kbnn.converters.c.export import export_c

    loaded, images, description = _load(source, calibrate, data_dir)
    exported = export_c(
        loaded,
        output,
        name,
        images,
        description=description,
        max_ram=max_ram,
        tflm=tflm,
        fallback_name=artifact_name(source),
    )
    checked = run_check(output, exported.name) if check else None
    show({"export": exported, "check": checked} if as_json and checked else exported, as_json)
    if checked is not None:
        if not as_json:
            click.echo(str(checked))
        if not checked.passed:
            raise KbnnError(f"the self-test in '{output}' failed: {checked.output}")


def _load(
    source: Path, calibrate: str | None, data_dir: Path | None
) -> "tuple[tf.keras.Model | Path, np.ndarray | None, Description | None]":
    """The model or the file's path, images for calibration and tests, and the description of the data."""
    if files.suffix(source) == ".tflite":
        data = load_dataset(source, calibrate, data_dir) if calibrate else None
        return source, None if data is None else data.calibration(), None
    from kbnn.converters import Description

    model = load_model(source)
    if not calibrate and not source.is_dir():
        raise UsageError(f"the int8 network needs calibration: received '{source}' without data, give --calibrate DATA")
    data = load_dataset(source, calibrate, data_dir)
    check_classes(source, data)
    images = data.calibration()
    return model, images, Description.of(data, recipe_name(source), model.name)
