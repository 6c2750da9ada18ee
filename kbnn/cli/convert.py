"""`kbnn convert`."""

from pathlib import Path
from typing import Any

import click

from kbnn.cli.artifacts import data_dir_option, dataset_option, load_dataset, load_model, model_argument
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import KbnnError

_IMAGES = 64


@click.command(cls=Command)
@model_argument
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="The .tflite file to write.")
@dataset_option
@data_dir_option
@json_option
def command(model: Path, output: Path, dataset: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Turn a trained model into a bitpacked .tflite file, or say why that is not possible.

    The file appears when it has been proven to compute what Keras computes, on test images of the data set that is
    given or that the run was trained on, else on random images.

    \b
    Example:
      kbnn convert runs/resnet20-bireal-cifar10 -o resnet20.tflite
      kbnn convert model.keras -o model.tflite --json
    """
    import_tensorflow()
    from kbnn import converters

    loaded = load_model(model)
    show(converters.convert(loaded, output, _images(model, dataset, data_dir)), as_json)


def _images(model: Path, dataset: str | None, data_dir: Path | None) -> Any:
    """Test images, or None where neither a data set is named nor a run's is at hand."""
    try:
        data = load_dataset(model, dataset, data_dir)
    except KbnnError as error:
        if dataset:
            raise
        click.echo(f"verifying on random images ({error})", err=True)
        return None
    return data.inputs(data.test.take(slice(_IMAGES)))
