"""`kbnn evaluate`."""

from pathlib import Path

import click

from kbnn.cli.artifacts import data_dir_option, dataset_option, load_dataset, load_model, model_argument
from kbnn.cli.command import Command, import_tensorflow, json_option, show


@click.command(cls=Command)
@model_argument
@dataset_option
@data_dir_option
@json_option
def command(model: Path, dataset: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Accuracy of a trained run or model on the held-out test set.

    \b
    Example:
      kbnn evaluate runs/resnet20-bireal-cifar10
      kbnn evaluate model.keras --dataset cifar10 --json
    """
    import_tensorflow()
    from kbnn.training import evaluate

    loaded = load_model(model)
    show(evaluate(loaded, load_dataset(model, dataset, data_dir)), as_json)
