"""What commands take as MODEL: the folder of a run, or a .keras file."""

from pathlib import Path
from typing import Any

import click

from kbnn.errors import UsageError

model_argument = click.argument("model", type=click.Path(path_type=Path))
dataset_option = click.option(
    "--dataset",
    "--data",
    "dataset",
    metavar="NAME|FOLDER",
    help="Data set by name, or folder of images with a sub-folder per class; a run knows its own.",
)
data_dir_option = click.option("--data-dir", type=click.Path(path_type=Path), help="tensorflow-datasets' data folder.")


def load_model(path: Path) -> Any:
    """The Keras model of a run's folder or a .keras file."""
    from kbnn.training.run import Run, load_model

    return Run.open(path).model() if path.is_dir() else load_model(path)


def recipe_name(path: Path) -> str:
    """The recipe that a run trained by; nothing for a .keras file."""
    from kbnn.training.run import Run

    return Run.open(path).recipe.name if path.is_dir() else ""


def load_dataset(path: Path, name: str | None, data_dir: Path | None) -> Any:
    """The data set named on the command line, or the one that the run at `path` trained on."""
    from kbnn import datasets
    from kbnn.training.run import Run

    if name and name not in datasets.names() and Path(name).is_dir():
        side = load_model(path).input_shape[1]
        return datasets.load_folder(name, transform=datasets.Transform(resize=round(side * 8 / 7), size=side))
    if name:
        return datasets.load(name, data_dir=data_dir)
    if path.is_dir():
        return Run.open(path).dataset(data_dir)
    raise UsageError(f"'{path}' does not say which data it was trained on: give --dataset")
