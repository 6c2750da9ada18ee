"""`kbnn train`."""

import contextlib
import dataclasses
import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn.cli import fail
from kbnn.cli.artifacts import data_dir_option, trust_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.cli.settings import parsed, set_option
from kbnn.errors import UsageError

if TYPE_CHECKING:
    from kbnn.training import Recipe


@click.command(cls=Command)
@click.argument("recipe", required=False)
@click.option("--model", help="Network, see `kbnn models`.")
@click.option("--method", help="Binarization method, such as siman or xnor+ml.  [default: bireal, or the weights']")
@click.option(
    "--weights",
    metavar="NAME|PATH",
    help="Start from trained weights: a name of `kbnn models --pretrained`, a run, or a file.",
)
@click.option("--dataset", help="Data set by name, such as digits or cifar10.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of your own images, one sub-folder per class.")
@click.option(
    "--size", type=click.IntRange(min=1), help="Height and width of the input.  [default: 224, or the weights']"
)
@click.option("--unreadable", type=click.Choice(["refuse", "skip"]), help="What to do if images are damaged.")
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Total epochs of all stages.  [default: 60, or the recipe's]"
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Images per step.  [default: 128, fewer for small folders, or the recipe's]",
)
@click.option("--seed", type=int, help="[default: 0, or the recipe's]")
@set_option
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Continue an interrupted run, which must exist.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@data_dir_option
@trust_option
@json_option
def command(
    recipe: str | None,
    model: str | None,
    method: str | None,
    weights: str | None,
    dataset: str | None,
    data: Path | None,
    size: int | None,
    unreadable: str | None,
    epochs: int | None,
    batch: int | None,
    seed: int | None,
    settings: tuple[str, ...],
    output: Path | None,
    resume: bool,
    quiet: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Train a network, or resume an interrupted run.

    RECIPE is the name of a recipe (see `kbnn recipes`) or a TOML file; options change it. All GPUs of the machine are
    used; with TF_CONFIG in the environment, several machines train together.

    \b
    Example:
      kbnn train siman-resnet20-cifar10
      kbnn train presb18-cifar100 --epochs 20 --set stage.2.learning_rate=1e-3
      kbnn train --model resnet20 --method bireal --dataset cifar10 --epochs 2
      kbnn train --model bireal18 --data photos/ --size 128
      kbnn train --weights resnet20-bnn-cifar10 --data photos/
      kbnn train --output runs/resnet20-bireal-cifar10 --resume
      kbnn train --output runs/bireal18-bireal-photos --resume --data moved/photos
    """
    import_tensorflow()
    from kbnn import training

    options = _Options(model, method, dataset, data, size, epochs, batch, seed, weights)
    if recipe is None and resume and output and not (model or weights):
        _check_resumable(output)
        wanted = options.resumed(training.Run.open(output).recipe)
    else:
        wanted = options.made() if recipe is None else options.changed(training.catalog.find(recipe))
    changes, further = {"data.unreadable": unreadable} if unreadable else {}, parsed(settings)
    _check_given_once({**options.keys(), **changes}, further, epochs)
    wanted = wanted.changed({**changes, **further})
    folder = output or Path("runs") / wanted.name
    if resume:
        _check_resumable(folder)
    strategy = training.distribution.choose()
    try:
        run = training.train(wanted, folder, resume=resume, data_dir=data_dir, strategy=strategy, quiet=quiet)
    except training.InterruptedRunError as error:
        fail(f"{error}: kbnn train --output {shlex.quote(str(folder))} --resume", error.exit_status)
    if training.distribution.is_chief(strategy):
        show(training.result(run), as_json)


@dataclass(frozen=True)
class _Options:
    """The options that change a recipe, or without one, describe it."""

    model: str | None
    method: str | None
    dataset: str | None
    data: Path | None
    size: int | None
    epochs: int | None
    batch: int | None
    seed: int | None
    weights: str | None

    def keys(self) -> dict[str, object]:
        """The settings of a recipe that the options stand for, by dotted key."""
        found = {
            "model.name": self.model,
            "model.method": self.method,
            "data.batch": self.batch,
            "seed": self.seed,
        }
        return {key: value for key, value in found.items() if value is not None}

    def made(self) -> "Recipe":
        """A recipe with common defaults."""
        from kbnn.training import Recipe
        from kbnn.training.recipe import source_of

        model = self.model
        if self.weights is not None and not model:
            origin, _ = source_of(None, self.weights, self.method)
            if origin is None:
                raise UsageError(f"'{self.weights}' does not record the name of its network: give --model, too")
            model = origin.name
        if not model or not (self.dataset or self.data):
            raise UsageError(
                "nothing to train: give RECIPE, --model or --weights with --dataset or --data, or --output RUN --resume"
            )
        made = Recipe.of(
            model,
            self.method,
            self.dataset,
            folder=self.data,
            size=self.size,
            batch=self.batch,
            seed=self.seed or 0,
            weights=self.weights,
        )
        return made.shortened(self.epochs)

    def changed(self, recipe: "Recipe") -> "Recipe":
        """A recipe, changed by the options that are given."""
        from kbnn.training.recipe import source_of

        if self.dataset or self.data or self.size:
            recipe = recipe.on(self.dataset, folder=self.data, size=self.size)
        network = self.model or recipe.model.name
        start = {}
        if self.weights is not None:
            start["model.weights"] = source_of(network, self.weights, self.method)[1]
        return recipe.changed({**self.keys(), **start}).shortened(self.epochs)

    def resumed(self, recipe: "Recipe") -> "Recipe":
        """A run's recipe, changed by the options that are given; a folder of images may have moved."""
        if self.data is None or recipe.data.folder is None:
            return self.changed(recipe)
        moved = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folder": str(self.data.absolute())})})
        return dataclasses.replace(self, data=None).changed(moved)


def _check_given_once(options: Mapping[str, object], settings: Mapping[str, object], epochs: int | None) -> None:
    """Raises UsageError if an option and a different value of --set are given for the same setting."""
    for key, value in options.items():
        if settings.get(key, value) != value:
            raise UsageError(
                f"cannot set '{key}' twice: received {value!r} from its option and {settings[key]!r} from --set, give "
                f"one of them"
            )
    lengths = [key for key in settings if re.fullmatch(r"stage\.\d+\.epochs", key)]
    if epochs is not None and lengths:
        raise UsageError(
            f"cannot set '{lengths[0]}' along with --epochs, the total of all stages: received "
            f"{settings[lengths[0]]!r} and {epochs}, give one of them"
        )


def _check_resumable(folder: Path) -> None:
    """Raises UsageError if the folder is not a run; suggests runs with similar names."""
    from kbnn.training import Run

    if Run.exists(folder):
        return
    with contextlib.suppress(OSError):
        runs = [path.name for path in folder.parent.iterdir() if Run.exists(path)]
        near = [str(folder.parent / name) for name in difflib.get_close_matches(folder.name, runs, n=3)]
        if near:
            raise UsageError(f"no run to resume: '{folder}' is not a run; did you mean {' or '.join(near)}?")
    raise UsageError(f"no run to resume: '{folder}' is not a run; check --output, or leave --resume out to start one")
