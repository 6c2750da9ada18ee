"""`kbnn sweep`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn.cli import fail
from kbnn.cli.artifacts import data_dir_option, trust_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.cli.settings import chosen, only_option, parsed, set_option, several
from kbnn.errors import KbnnError
from kbnn.printable import printable

if TYPE_CHECKING:
    import tensorflow as tf

    from kbnn.training import Recipe, Run


@click.command(cls=Command)
@click.argument("grid")
@click.option("--over", multiple=True, metavar="KEY=V,V", help="Vary a setting of a recipe: seed=0,1,2; repeatable.")
@only_option
@click.option("--epochs", type=click.IntRange(min=1), help="Total epochs of each variant.  [default: the recipe's]")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs of each variant, with consecutive seeds from the recipe's own.",
)
@set_option
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder of the runs.  [default: runs/NAME]")
@data_dir_option
@trust_option
@json_option
def command(
    grid: str,
    over: tuple[str, ...],
    only: str | None,
    epochs: int | None,
    seeds: int,
    settings: tuple[str, ...],
    output: Path | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Train every recipe of a grid, and tabulate the results with the paper's figures.

    GRID is one of `kbnn recipes`, a TOML file, or with --over, a recipe. If called again, it resumes where it stopped;
    finished runs are not trained again. If a variant fails, the error is reported, the others are trained, and the exit
    status is 1.

    \b
    Example:
      kbnn sweep bnnplus-table1-alexnet
      kbnn sweep bnnplus-table1-alexnet --only "r2/*" --epochs 10 --set policy=mixed_bfloat16
      kbnn sweep mlbma-resnet20-xnor+ml-cifar10 --over model.penalty=1e-5,1e-4 --over data.batch=64,128
      kbnn sweep siman-resnet20-cifar10 --over seed=0,1,2
    """
    from kbnn.training import Grid, catalog

    varied = Grid.of(catalog.find(grid), several(over)) if over else catalog.grid(grid)
    varied = varied.changed(parsed(settings))
    name, source = varied.recipe.name, varied.recipe.source or "no source given"
    labels = chosen(f"variant of {name}", varied.labels, only)
    variants = {label: varied.variant(label) for label in labels}
    import_tensorflow()
    from kbnn import reproduction, training

    rows = [reproduction.Row(label, recipe, recipe.paper, varied.values(label)) for label, recipe in variants.items()]
    strategy = training.distribution.choose()
    try:
        table = reproduction.reproduce(
            name,
            source,
            rows,
            output or Path("runs") / name,
            lambda recipe, folder: train(recipe, folder, data_dir, strategy),
            training.result,
            epochs=epochs,
            seeds=seeds,
        )
    except training.InterruptedRunError as error:
        fail(f"{error} with the same command", error.exit_status)
    swept = reproduction.Sweep(name, source, tuple(axis.name for axis in varied.axis), table.outcomes)
    show(swept, as_json)
    for warning in table.warnings if as_json else ():
        click.echo(printable(warning), err=True)
    if swept.failed:
        raise KbnnError(
            f"{len(swept.failed)} of {len(rows)} variants failed; '{swept.failed[0].row}': {swept.failed[0].note}"
        )


def train(
    recipe: "Recipe", folder: Path, data_dir: Path | None, strategy: "tf.distribute.Strategy | None" = None
) -> "Run":
    """Trains one row of a table, or resumes it."""
    from kbnn import training

    click.echo(f"{recipe.name}, seed {recipe.seed}", err=True)
    return training.train(recipe, folder, resume=True, data_dir=data_dir, strategy=strategy)
