"""`kbnn train`."""

from pathlib import Path

import click

from kbnn.cli.artifacts import data_dir_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import UsageError


@click.command(cls=Command)
@click.option("--model", help="Network, see `kbnn models`.")
@click.option("--method", default="bireal", show_default=True, help="What makes it binary.")
@click.option("--dataset", help="digits or cifar10.")
@click.option("--epochs", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NAME]")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch.")
@data_dir_option
@json_option
def command(
    model: str | None,
    method: str,
    dataset: str | None,
    epochs: int,
    batch: int,
    seed: int,
    output: Path | None,
    resume: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Train a network, or go on with an interrupted run.

    \b
    Example:
      kbnn train --model resnet20 --method bireal --dataset cifar10 --epochs 2
      kbnn train --output runs/resnet20-bireal-cifar10 --resume
    """
    import_tensorflow()
    from kbnn import training
    from kbnn.cli.progress import Progress, summary

    if resume and output and not model:
        recipe = training.Run.open(output).recipe
    elif model and dataset:
        recipe = training.Recipe.of(model, method, dataset, epochs=epochs, batch=batch, seed=seed)
    else:
        raise UsageError("what to train is not clear: give --model and --dataset, or --output RUN --resume")
    folder = output or Path("runs") / recipe.name
    run = training.train(recipe, folder, resume=resume, data_dir=data_dir, callbacks=[Progress(recipe.epochs)])
    show(summary(run), as_json)
