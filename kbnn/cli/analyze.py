"""`kbnn analyze`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn.cli.artifacts import data_dir_option, dataset_option, load_dataset, load_model, model_argument
from kbnn.cli.command import Command, import_tensorflow, json_option, show

if TYPE_CHECKING:
    from kbnn.analysis.study import Subject


@click.command(cls=Command)
@model_argument
@click.option(
    "--compare", type=click.Path(path_type=Path), multiple=True, help="A further run or model to lay over it; repeat."
)
@dataset_option
@data_dir_option
@click.option("--samples", type=click.IntRange(min=1), default=256, show_default=True, help="Held-out images to use.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder.  [default: analysis in the run]")
@json_option
def command(
    model: Path,
    compare: tuple[Path, ...],
    dataset: str | None,
    data_dir: Path | None,
    samples: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Draw what a network's binary layers do: entropy, quantization error, weights, training.

    MODEL is the folder of a run or a .keras file. Writes PNGs and one self-contained page, analysis.html; held-out
    images are taken from the training set's validation split.

    \b
    Example:
      kbnn analyze runs/resnet20-bireal-cifar10
      kbnn analyze runs/xnor --compare runs/xnor+ml --compare runs/xnor+bma -o comparison
      kbnn analyze model.keras --dataset cifar10 --json
    """
    import_tensorflow()
    from kbnn.analysis.observation import images_of
    from kbnn.analysis.study import study

    images = images_of(load_dataset(model, dataset, data_dir), samples)
    folder = output or (model / "analysis" if model.is_dir() else Path(f"{model.stem}-analysis"))
    show(study(_subjects((model, *compare)), images, folder), as_json)


def _subjects(paths: tuple[Path, ...]) -> "list[Subject]":
    """Networks by the names of their paths, told apart by their folders where names are equal."""
    names = [path.stem if path.suffix == ".keras" else path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [_subject(name, path) for name, path in zip(names, paths, strict=True)]


def _subject(name: str, path: Path) -> "Subject":
    from kbnn.analysis.diagnostics import FILE
    from kbnn.analysis.study import Subject
    from kbnn.analysis.weight_history import WeightHistory
    from kbnn.training import Run

    model = load_model(path)
    if not path.is_dir():
        return Subject(name, model)
    weights = WeightHistory.read(path / FILE) if (path / FILE).is_file() else None
    return Subject(name, model, Run.open(path).history(), weights)
