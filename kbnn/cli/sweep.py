"""`kbnn sweep`."""

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbnn.cli.artifacts import data_dir_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.cli.settings import parsed, set_option, several
from kbnn.errors import KbnnError, UsageError

if TYPE_CHECKING:
    from kbnn.training import Grid


@click.command(cls=Command)
@click.argument("grid")
@click.option("--over", multiple=True, metavar="KEY=V,V", help="Vary a setting of a recipe: seed=0,1,2; repeatable.")
@click.option("--only", metavar="PATTERN", help="Only the variants whose names match, such as 'r2/*'.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of each variant in all.  [default: the recipe's]")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each variant.")
@set_option
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Folder of the runs.  [default: runs/NAME]")
@data_dir_option
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
    """Train every recipe of a grid, and tabulate them beside the paper's figures.

    GRID is one of `kbnn recipes`, a TOML file, or with --over a recipe. Called again, it goes on where it stopped, and
    what has finished is not trained again. A variant that fails is reported, and the others go on; status 1 then.

    \b
    Example:
      kbnn sweep bnnplus-table1-alexnet
      kbnn sweep bnnplus-table1-alexnet --only "r2/*" --epochs 10 --set policy=mixed_bfloat16
      kbnn sweep mlbma-resnet20-xnor+ml-cifar10 --over model.penalty=1e-5,1e-4 --over data.batch=64,128
    """
    import_tensorflow()
    from kbnn import reproduction
    from kbnn.training import Grid, catalog, distribution

    chosen = Grid.of(catalog.find(grid), several(over)) if over else catalog.grid(grid)
    chosen = chosen.changed(parsed(settings))
    rows = [reproduction.Row(label, chosen.variant(label), chosen.paper.get(label)) for label in _labels(chosen, only)]
    strategy = distribution.choose()
    name, source = chosen.recipe.name, chosen.recipe.source or "no source given"
    table = reproduction.reproduce(
        name,
        source,
        rows,
        output or Path("runs") / name,
        lambda recipe, folder: _train(recipe, folder, data_dir, strategy),
        _top1,
        epochs=epochs,
        seeds=range(seeds),
    )
    swept = reproduction.Sweep(name, source, tuple(axis.name for axis in chosen.axis), table.outcomes)
    show(swept, as_json)
    if swept.failed:
        raise KbnnError(
            f"{len(swept.failed)} of {len(rows)} variants failed, '{swept.failed[0].row}': {swept.failed[0].note}"
        )


def _labels(grid: "Grid", only: str | None) -> list[str]:
    found = fnmatch.filter(grid.labels, only or "*")
    if not found:
        raise UsageError(
            f"no variant of {grid.recipe.name} matches: received '{only}', its last is '{grid.labels[-1]}'"
        )
    return found


def _train(recipe: Any, folder: Path, data_dir: Path | None, strategy: Any) -> Any:
    from kbnn import training
    from kbnn.cli.progress import Progress

    click.echo(f"{recipe.name}, seed {recipe.seed}", err=True)
    with Progress(recipe.epochs) as progress:
        return training.train(recipe, folder, resume=True, data_dir=data_dir, callbacks=[progress], strategy=strategy)


def _top1(run: Any) -> float:
    from kbnn import training

    return 100 * training.result(run).top1
