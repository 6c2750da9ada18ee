"""`kbnn convert`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn.cli.artifacts import (
    OutputFile,
    check_classes,
    data_dir_option,
    dataset_option,
    load_dataset,
    load_model,
    model_argument,
    recipe_name,
    recorded,
)
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import KbnnError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from kbnn.converters.tflite.metadata import Description
    from kbnn.datasets import Dataset

_IMAGES = 64


@click.command(cls=Command)
@model_argument
@click.option("--output", "-o", required=True, type=OutputFile("a .tflite file"), help="The .tflite file to write.")
@click.option(
    "--kernel",
    type=click.Choice(["grouped", "portable"]),
    help="Grouped convolutions as one operator (default), or as one per group, as LCE's default kernel requires.",
)
@click.option(
    "--device",
    type=click.Choice(["generic", "pi4", "pi5", "android", "microcontroller"]),
    default="generic",
    show_default=True,
    help="Use the fastest form for a device; the generic form is never slower than a plain conversion.",
)
@click.option("--allow-float", multiple=True, metavar="LAYER", help="A 1-bit layer that may become float; repeatable.")
@click.option(
    "--weights",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="How the weights of real-valued layers are stored.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Quantize real-valued weights to int8, and activations where that is faster or for microcontrollers.",
)
@click.option(
    "--calibrate", metavar="DATA", help="Data set or folder of images for the calibration.  [default: a run's own]"
)
@dataset_option
@data_dir_option
@json_option
def command(
    model: Path,
    output: Path,
    weights: str,
    kernel: str | None,
    device: str,
    allow_float: tuple[str, ...],
    int8: bool,
    calibrate: str | None,
    dataset: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Convert a trained model to a bitpacked .tflite file, or report why that is not possible.

    The file is written only after it has been verified to compute the same as Keras, on test images of the given data
    set or of the run's own, or else on random images. It contains the data set's labels and normalization.

    \b
    Example:
      kbnn convert runs/resnet20-bireal-cifar10 -o resnet20.tflite
      kbnn convert runs/resnet20-bireal-cifar10 -o small.tflite --weights int8
      kbnn convert runs/bireal18-imagenet -o pi.tflite --device pi5 --weights int8
      kbnn convert model.keras -o int8.tflite --int8 --calibrate photos/
      kbnn convert model.keras -o model.tflite --dataset cifar10 --json
    """
    if calibrate and not int8:
        raise UsageError(f"--calibrate needs --int8: received --calibrate {calibrate} alone, add --int8")
    if int8 and weights == "int8":
        raise UsageError("--int8 makes weights int8, too: received --weights int8 with it, leave one of them out")
    import_tensorflow()
    from kbnn import converters

    loaded = load_model(model)
    data = _data(model, dataset, data_dir, "calibration" if calibrate else "random")
    if data is not None:
        check_classes(model, data)
    images, labels = (None, None) if data is None else test_images(data, _IMAGES)
    try:
        artifact = converters.convert(
            loaded,
            output,
            images,
            kernel=kernel,
            device=device,
            allow_float=allow_float,
            weights=weights,
            calibration=_calibration(model, calibrate, data, data_dir) if int8 else None,
            description=_description(model, loaded.name, data),
            labels=labels,
        )
    except converters.ConversionError as error:
        hint = " (on the command line: --allow-float LAYER)" if "allow_float=" in str(error) else ""
        raise converters.ConversionError(f"{error}{hint}") from error
    show(artifact, as_json)


def test_images(data: "Dataset", count: int) -> "tuple[np.ndarray, np.ndarray]":
    """The network's inputs for the first test images of a data set, and their labels."""
    import numpy as np

    labels = [labels.numpy() for _, labels in data.batches(data.test, count).take(1)]
    return data.inputs(data.test, count), np.concatenate(labels)[:count] if labels else np.zeros(0, int)


def _data(model: Path, dataset: str | None, data_dir: Path | None, otherwise: str) -> "Dataset | None":
    """The named data set, or the one that a run was trained on; None if neither is available."""
    from kbnn.training.run import ChangedDataError

    try:
        return load_dataset(model, dataset, data_dir)
    except ChangedDataError:
        raise
    except KbnnError as error:
        if dataset:
            raise
        lost = "" if recorded(model).labels else "; the file will not contain labels"
        click.echo(f"verifying on {otherwise} images{lost} ({error})", err=True)
        return None


def _calibration(model: Path, name: str | None, data: "Dataset | None", data_dir: Path | None) -> "np.ndarray":
    """Training images of the named data set, or else of the one on whose test images the file is verified.

    They are normalized like the test images, as in training; the named data set's own normalization may differ.
    """
    if name:
        given = load_dataset(model, name, data_dir)
        data = given if data is None else dataclasses.replace(given, normalization=data.normalization)
    if data is None:
        raise UsageError("--int8 needs images for the calibration: received none, give --calibrate DATA")
    return data.calibration()


def _description(model: Path, name: str, data: "Dataset | None") -> "Description":
    from kbnn.converters import Description

    recipe = recipe_name(model)
    if data is not None:
        return Description.of(data, recipe, name)
    return dataclasses.replace(recorded(model), model=name, recipe=recipe)
