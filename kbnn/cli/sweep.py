"""`kbnn sweep`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn.cli.artifacts import data_dir_option, trust_option
from kbnn.cli.command import Command, import_tensorflow, json_option
from kbnn.cli.settings import chosen, only_option, parsed, set_option, several
from kbnn.cli.trained_rows import filled, seeds_option, show_filled, train

if TYPE_CHECKING:
    from kbnn.training import Recipe, Run


@click.command(cls=Command)
@click.argument("grid")
@click.option("--over", multiple=True, metavar="KEY=V,V", help="Vary a setting of a recipe: seed=0,1,2; repeatable.")
@only_option
@click.option("--epochs", type=click.IntRange(min=1), help="Total epochs of each variant.  [default: the recipe's]")
@seeds_option("variant")
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
    folder = output or Path("runs") / name

    def train_row(recipe: "Recipe", run: Path) -> "Run":
        return train(recipe, run, data_dir, strategy)

    table = filled(name, source, rows, folder, train_row, epochs, seeds)
    axes = tuple(axis.name for axis in varied.axis)
    show_filled(reproduction.Sweep(name, source, table.outcomes, axes), as_json, "variants failed")
