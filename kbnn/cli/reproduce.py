"""`kbnn reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbnn import tables
from kbnn.cli.artifacts import data_dir_option
from kbnn.cli.command import Command, import_tensorflow, json_option, show
from kbnn.errors import KbnnError, UsageError, unknown

if TYPE_CHECKING:
    from kbnn.reproduction import Accuracy, AccuracyTable, Drawing, Row


@click.command(cls=Command)
@click.argument("table", required=False)
@click.option("--list", "listing", is_flag=True, help="List the tables.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of each row.  [default: the recipe's]")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each row.")
@click.option("--rows", help="Only these rows, with commas between them.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Folder of runs or figures.  [default: runs/TABLE]"
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]),
    help="In which layers compute.  [default: the recipe's, or float32]",
)
@data_dir_option
@json_option
def command(
    table: str | None,
    listing: bool,
    epochs: int | None,
    seeds: int,
    rows: str | None,
    output: Path | None,
    precision: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Compute or train a table of the papers, and set it beside the printed one.

    Tables of storage, FLOPs, angles and shares are computed in full; status 1 if a cell is off. Accuracy tables train
    their rows, for fewer epochs than the papers if you say so, and go on where they stopped when called again; status 1
    if a row could not be trained. Figures that follow from formulas are drawn; those of trained networks come from
    `kbnn analyze`.

    \b
    Example:
      kbnn reproduce --list
      kbnn reproduce bireal-table3
      kbnn reproduce siman-table2 --epochs 20
      kbnn reproduce cifar10-resnet20 --epochs 20 --rows xnor,xnor+ml --precision mixed_bfloat16
    """
    if not listing and table is None:
        raise UsageError("which table is not clear: give its name, or --list")
    import_tensorflow()
    from kbnn import reproduction

    if listing or table is None:
        show(_listing(), as_json)
        return
    found = reproduction.get(table)
    if isinstance(found, reproduction.Accuracy):
        folder = output or Path("runs") / found.name
        filled = _train(found, _chosen(found, rows), folder, epochs, seeds, precision, data_dir)
        show(filled, as_json)
        if filled.failed:
            failed = ", ".join(outcome.row for outcome in filled.failed)
            raise KbnnError(f"rows without a result, for the reasons given: {failed}; call again to go on")
        return
    if isinstance(found, reproduction.Drawing):
        show(_draw(found, output or Path("runs") / found.name), as_json)
        return
    from kbnn import models

    comparison = found.compare(models.build)
    show(comparison, as_json)
    if not comparison.agrees:
        raise KbnnError(f"table '{table}' has cells that are off: see the rows marked so")


@dataclass(frozen=True)
class Entry:
    """One table that can be reproduced; `rows` are those that are trained."""

    name: str
    kind: str
    rows: int | None
    source: str


@dataclass(frozen=True)
class Listing:
    """All of them."""

    tables: tuple[Entry, ...]

    def __str__(self) -> str:
        rows = [(entry.name, entry.kind, entry.rows or "", entry.source) for entry in self.tables]
        return tables.render(("table", "", ">rows", "what"), rows)


def _listing() -> Listing:
    from kbnn import reproduction

    kinds = {reproduction.Analytic: "computed", reproduction.Accuracy: "trained", reproduction.Drawing: "drawn"}
    entries = [Entry(found.name, kinds[type(found)], _size(found), found.source) for found in reproduction.tables()]
    return Listing(tuple(entries))


def _size(table: Any) -> int | None:
    from kbnn import reproduction

    return len(table.rows()) if isinstance(table, reproduction.Accuracy) else None


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn, and what it shows."""

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


def _chosen(table: "Accuracy", names: str | None) -> "list[Row]":
    rows = {row.label: row for row in table.rows()}
    if names is None:
        return list(rows.values())
    for name in names.split(","):
        if name not in rows:
            raise unknown(f"row of {table.name}", name, rows)
    return [rows[name] for name in names.split(",")]


def _train(
    table: "Accuracy",
    rows: "list[Row]",
    folder: Path,
    epochs: int | None,
    seeds: int,
    precision: str | None,
    data_dir: Path | None,
) -> "AccuracyTable":
    from kbnn import reproduction, training
    from kbnn.cli.progress import Progress

    def train(recipe: Any, folder: Path) -> Any:
        click.echo(f"{table.name}: {recipe.name}, seed {recipe.seed}", err=True)
        if precision:
            recipe = recipe.changed({"policy": precision})
        with Progress(recipe.epochs) as progress:
            return training.train(recipe, folder, resume=True, data_dir=data_dir, callbacks=[progress])

    def test(run: Any) -> float:
        return 100 * training.result(run).top1

    return reproduction.reproduce(
        table.name, table.source, rows, folder, train, test, epochs=epochs, seeds=range(seeds)
    )
