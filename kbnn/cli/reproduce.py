"""`kbnn reproduce`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbnn import tables
from kbnn.cli.artifacts import data_dir_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.cli.settings import chosen, only_option, rows_option
from kbnn.cli.trained_rows import filled, seeds_option, show_filled, train
from kbnn.errors import KbnnError, UsageError

if TYPE_CHECKING:
    from kbnn.reproduction import AccuracyTable, Drawing, TrainedTable
    from kbnn.training import Recipe, Run


@click.command(cls=Command)
@click.argument("table", required=False)
@click.option("--list", "listing", is_flag=True, help="List the tables.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of each row.  [default: the recipe's]")
@seeds_option("row")
@only_option
@rows_option
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Folder of runs or figures.  [default: runs/TABLE]"
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]),
    help="Precision in which layers compute.  [default: the recipe's, or float32]",
)
@data_dir_option
@json_option
def command(
    table: str | None,
    listing: bool,
    epochs: int | None,
    seeds: int,
    only: str | None,
    rows: str | None,
    output: Path | None,
    precision: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Compute or train a table of the papers, and compare it with the printed one.

    Tables of storage, FLOPs, angles and shares are computed; the exit status is 1 if a cell deviates. The rows of
    accuracy tables are trained, with --epochs for fewer epochs than in the papers, and resumed if called again; the
    exit status is 1 if a row could not be trained. Figures that follow from formulas are drawn; `kbnn analyze` draws
    those of trained networks.

    \b
    Example:
      kbnn reproduce --list
      kbnn reproduce bireal-table3
      kbnn reproduce siman-table2 --epochs 20
      kbnn reproduce cifar10-resnet20 --epochs 20 --only xnor,xnor+ml --precision mixed_bfloat16
    """
    from kbnn import reproduction

    if listing:
        show(_listing(), as_json)
        return
    if table is None:
        raise UsageError("no table given: give its name, or --list")
    found = reproduction.get(table)
    if isinstance(found, reproduction.TrainedTable):
        labels = chosen(f"row of {found.name}", [row.label for row in found.rows()], only or rows)
        import_tensorflow()
        folder = output or Path("runs") / found.name
        trained = _train(found, labels, folder, epochs, seeds, precision, data_dir)
        show_filled(trained, as_json, "rows were not trained")
        return
    given = {"--epochs": epochs, "--seeds": seeds > 1, "--only": only or rows, "--precision": precision}
    _check_unused(given, found.name)
    import_tensorflow()
    if isinstance(found, reproduction.Drawing):
        show(_draw(found, output or Path("runs") / found.name), as_json)
        return
    from kbnn import models

    comparison = found.compare(models.build)
    show(comparison, as_json)
    if not comparison.agrees:
        raise KbnnError(f"table '{table}' has cells that deviate from the paper: see the marked rows")


def _check_unused(options: Mapping[str, object], table: str) -> None:
    """Raises UsageError if an option is given that only matters for training."""
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(f"table '{table}' is not trained: received {', '.join(given)}, which only matter for training")


@dataclass(frozen=True)
class TableEntry:
    """A table that can be reproduced; `rows` is the number of rows to train."""

    name: str
    kind: str
    rows: int | None
    source: str


@dataclass(frozen=True)
class TableListing:
    """All tables that can be reproduced."""

    tables: tuple[TableEntry, ...]

    def __str__(self) -> str:
        rows = [(entry.name, entry.kind, entry.rows or "", entry.source) for entry in self.tables]
        return tables.render(("table", "", ">rows", "what"), rows)


def _listing() -> TableListing:
    from kbnn import reproduction

    kinds = {
        reproduction.AnalyticTable: "computed",
        reproduction.TrainedTable: "trained",
        reproduction.Drawing: "drawn",
    }
    return TableListing(
        tuple(TableEntry(table.name, kinds[type(table)], _size(table), table.source) for table in reproduction.tables())
    )


def _size(table: object) -> int | None:
    from kbnn import reproduction

    return len(table.rows()) if isinstance(table, reproduction.TrainedTable) else None


@dataclass(frozen=True)
class Drawn:
    """A drawn figure and its caption."""

    page: str
    picture: str
    caption: str

    def __str__(self) -> str:
        return f"{self.picture}\n{self.page}\n{self.caption}"


def _draw(figure: "Drawing", folder: Path) -> Drawn:
    from kbnn import files
    from kbnn.analysis.page import Page, Section

    picture = figure.draw()
    page, image = folder / f"{figure.name}.html", folder / f"{figure.name}.png"
    Page(figure.source, "", [Section("Drawn from the library's own functions", pictures=[picture])]).write(page)
    files.write(image, picture.png)
    return Drawn(str(page), str(image), picture.caption)


def _train(
    table: "TrainedTable",
    labels: list[str],
    folder: Path,
    epochs: int | None,
    seeds: int,
    precision: str | None,
    data_dir: Path | None,
) -> "AccuracyTable":
    def train_row(recipe: "Recipe", folder: Path) -> "Run":
        return train(recipe.changed({"policy": precision}) if precision else recipe, folder, data_dir)

    rows = [row for row in table.rows() if row.label in labels]
    return filled(table.name, table.source, rows, folder, train_row, epochs, seeds)
