"""`kbnn train`."""

from pathlib import Path
from typing import Any

import click

from kbnn.cli.artifacts import data_dir_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import UsageError


@click.command(cls=Command)
@click.option("--model", help="Network, see `kbnn models`.")
@click.option("--method", default="bireal", show_default=True, help="What makes it binary.")
@click.option("--dataset", help="Data set by name, such as digits or cifar10.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of your own images, one sub-folder per class.")
@click.option("--size", type=click.IntRange(min=1), help="Side of the images that the network sees.  [default: 224]")
@click.option("--unreadable", type=click.Choice(["refuse", "skip"]), help="What to do about images that are damaged.")
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting: stage.1.epochs=30")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Go on where the run was interrupted.")
@data_dir_option
@json_option
def command(
    model: str | None,
    method: str,
    dataset: str | None,
    data: Path | None,
    size: int | None,
    unreadable: str | None,
    epochs: int,
    batch: int,
    seed: int,
    settings: tuple[str, ...],
    output: Path | None,
    resume: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Train a network, or go on with an interrupted run.

    \b
    Example:
      kbnn train --model resnet20 --method bireal --dataset cifar10 --epochs 2
      kbnn train --model bireal18 --data photos/ --size 64 --set stage.1.learning_rate=1e-3
      kbnn train --output runs/resnet20-bireal-cifar10 --resume
    """
    import_tensorflow()
    from kbnn import training
    from kbnn.cli.progress import Progress

    if model and (dataset or data):
        recipe = training.Recipe.of(
            model, method, dataset, folder=data, size=size, epochs=epochs, batch=batch, seed=seed
        )
    elif resume and output:
        recipe = training.Run.open(output).recipe
    else:
        raise UsageError("what to train is not clear: give --model and --dataset or --data, or --output RUN --resume")
    changes = {**({"data.unreadable": unreadable} if unreadable else {}), **_parsed(settings)}
    recipe = recipe.changed(changes)
    folder = output or Path("runs") / recipe.name
    with Progress(recipe.epochs) as progress:
        run = training.train(recipe, folder, resume=resume, data_dir=data_dir, callbacks=[progress])
    show(training.result(run), as_json)


def _parsed(settings: tuple[str, ...]) -> dict[str, Any]:
    """Settings by key; a value is TOML, or a plain word."""
    from kbnn.training.recipe import parse_value

    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise UsageError(f"cannot set '{key}': give KEY=VALUE, as in --set stage.1.epochs=30")
    return {key.strip(): parse_value(value.strip()) for key, _, value in pairs}
