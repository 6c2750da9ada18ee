"""`kbnn export-android`."""

from pathlib import Path

import click

from kbnn.cli.artifacts import (
    artifact_name,
    check_classes,
    data_dir_option,
    dataset_option,
    load_dataset,
    load_model,
    model_argument,
    recipe_name,
)
from kbnn.cli.command import Command, import_tensorflow, json_option, show


@click.command(cls=Command)
@model_argument
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("android_demo/app/src/main/assets"),
    show_default=True,
    help="The app's folder of assets.",
)
@dataset_option
@data_dir_option
@json_option
def command(model: Path, output: Path, dataset: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Write a trained model, its float32 and int8 twins, and their labels as assets of the Android app.

    \b
    Example:
      kbnn export-android runs/resnet20-bireal-cifar10
      kbnn export-android model.keras --dataset cifar10 -o app/src/main/assets
    """
    import_tensorflow()
    from kbnn.converters.android import export_android

    loaded = load_model(model)
    data = load_dataset(model, dataset, data_dir)
    check_classes(model, data)
    show(export_android(loaded, data, output, artifact_name(model), recipe_name(model)), as_json)
