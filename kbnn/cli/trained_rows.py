"""Trains the rows of an accuracy table and shows the results, for `kbnn reproduce` and `kbnn sweep`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from kbnn.cli import fail
from kbnn.cli.command import show
from kbnn.errors import KbnnError
from kbnn.printable import printable

if TYPE_CHECKING:
    import tensorflow as tf

    from kbnn.reproduction import AccuracyTable, Row
    from kbnn.training import Recipe, Run

_Decorated = TypeVar("_Decorated", bound=Callable[..., object])


def seeds_option(row: str) -> Callable[[_Decorated], _Decorated]:
    """The option `--seeds` of a command that trains several rows, each called `row` in its help."""
    return click.option(
        "--seeds",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help=f"Runs of each {row}, with consecutive seeds from the recipe's own.",
    )


def train(
    recipe: "Recipe", folder: Path, data_dir: Path | None, strategy: "tf.distribute.Strategy | None" = None
) -> "Run":
    """Trains one row of a table, or resumes it."""
    from kbnn import training

    click.echo(f"{recipe.name}, seed {recipe.seed}", err=True)
    return training.train(recipe, folder, resume=True, data_dir=data_dir, strategy=strategy)


def filled(
    name: str,
    source: str,
    rows: "Sequence[Row]",
    folder: Path,
    train_row: "Callable[[Recipe, Path], Run]",
    epochs: int | None,
    seeds: int,
) -> "AccuracyTable":
    """The table of the rows' results, trained or resumed in a folder; see `reproduction.reproduce`."""
    from kbnn import reproduction, training

    try:
        return reproduction.reproduce(
            name, source, rows, folder, train_row, training.result, epochs=epochs, seeds=seeds
        )
    except training.InterruptedRunError as error:
        fail(f"{error} with the same command", error.exit_status)


def show_filled(table: "AccuracyTable", as_json: bool, failed: str) -> None:
    """Shows a table; as JSON, which does not contain its warnings, these go to stderr.

    Args:
        table: the trained table.
        as_json: whether to show it as JSON.
        failed: what the error says about the rows with missing results, such as "variants failed".

    Raises:
        KbnnError: results are missing; the message tells why, for the first of these rows.
    """
    show(table, as_json)
    for warning in table.warnings if as_json else ():
        click.echo(printable(warning), err=True)
    if table.failed:
        first = table.failed[0]
        raise KbnnError(f"{len(table.failed)} of {len(table.outcomes)} {failed}; '{first.row}': {first.note}")
