"""`kbnn analyze`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn import files
from kbnn.cli.artifacts import data_dir_option, dataset_option, load_dataset, load_model, trust_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import UsageError

if TYPE_CHECKING:
    from kbnn.analysis.study import Subject
    from kbnn.training import Run


@click.command(cls=Command)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@trust_option
@click.option("--compare", is_flag=True, help="Compare several runs or models in the same figures.")
@dataset_option
@data_dir_option
@click.option("--samples", type=click.IntRange(min=1), default=256, show_default=True, help="Held-out images to use.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Folder.  [default: analysis in the run; with --compare, a new folder comparison next to the first]",
)
@json_option
def command(
    models: tuple[Path, ...],
    compare: bool,
    dataset: str | None,
    data_dir: Path | None,
    samples: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Analyze a network's binary layers: entropy, quantization error, weights, training.

    MODEL is the folder of a run or a .keras file. Writes PNGs and one self-contained page, analysis.html. Uses images
    of the validation split.

    \b
    Example:
      kbnn analyze runs/resnet20-bireal-cifar10
      kbnn analyze --compare runs/xnor runs/xnor+ml runs/xnor+bma -o comparison
      kbnn analyze model.keras --data cifar10 --json
    """
    if len(models) > 1 and not compare:
        raise UsageError(f"analyze takes one model, or several with --compare: received {len(models)}")
    import_tensorflow()
    from kbnn.analysis.observation import images_of
    from kbnn.analysis.study import study
    from kbnn.training import Run

    first = models[0]
    data = load_dataset(first, dataset, data_dir)
    images = images_of(data, samples)
    if compare:
        folder = output or files.fresh_folder(first.parent / "comparison")
    else:
        folder = output or (first / "analysis" if first.is_dir() else Path(f"{first.stem}-analysis"))
        if output is None and Run.exists(first):
            Run.open(first).check_folders()
    subjects = _subjects(models)
    for subject in subjects:
        shape = getattr(subject.model, "input_shape", None)
        # Some networks take images of any size; their sides are None. Others do not record a shape.
        if isinstance(shape, tuple) and shape[1:] != data.input_shape and None not in shape[1:]:
            raise UsageError(
                f"the model does not fit data set '{data.name}': received input {shape[1:]}, the data has "
                f"{data.input_shape}"
            )
    show(study(subjects, images, folder), as_json)


def _subjects(paths: tuple[Path, ...]) -> "list[Subject]":
    """Networks named after their files or folders, or after their full paths if those names are not unique."""
    names = [path.stem if files.suffix(path) == ".keras" else path.resolve().name for path in paths]
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
    run = Run.open(path)
    weights = WeightHistory.read(path / FILE) if (path / FILE).is_file() else None
    return Subject(name, model, _origin(run), run.history(), weights, _accuracy(run))


def _accuracy(run: "Run") -> str:
    """Top-1 on the test set, if the run has finished, and on the validation images of its last epoch."""
    from kbnn.training import result
    from kbnn.training.results import has_result

    rows = [row["val_accuracy"] for row in run.history() if "val_accuracy" in row]
    tested = [f"top-1 {result(run).top1:.2%} on the test set"] if has_result(run) else []
    return ", ".join([*tested, *(f"{share:.2%} on validation images" for share in rows[-1:])])


def _origin(run: "Run") -> str:
    recipe = run.recipe
    data = recipe.data.name or Path(str(recipe.data.folder)).name
    held_out = f"{recipe.data.validation:.0%} of the training images held out"
    epochs = len(run.history())
    return f"seed {recipe.seed}, {epochs} epoch{'' if epochs == 1 else 's'} on {data}, {held_out}"
