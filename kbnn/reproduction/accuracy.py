"""Accuracy tables: trains recipes for a chosen number of epochs, and compares them with the paper's figures."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kbnn import tables
from kbnn.errors import KbnnError, UsageError
from kbnn.training import Recipe
from kbnn.training.grid import check_settings

if TYPE_CHECKING:
    from kbnn.training import Result, Run


@dataclass(frozen=True)
class Row:
    """One row of a table: its label, the recipe that trains it, and the paper's top-1 accuracy in percent.

    `settings` are the settings that the row varies, by dotted key; its runs must have them.
    """

    label: str
    recipe: Recipe
    paper: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The results of a row: accuracies on the test set in percent, one for each seed that finished.

    `epochs` is the number of trained epochs, `planned` the recipe's own; `note` says why results are missing; `twin`
    names an earlier run with exactly the same history as a run of this row.
    """

    row: str
    paper: float | None
    top1: tuple[float, ...]
    epochs: int
    planned: int
    seeds: tuple[int, ...]
    note: str = ""
    top5: tuple[float, ...] = ()
    paper_top5: float | None = None
    twin: str = ""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.top1) if self.top1 else None

    @property
    def mean_top5(self) -> float | None:
        return statistics.fmean(self.top5) if self.top5 else None

    @property
    def deviation(self) -> float | None:
        """Ours minus the paper's, in percentage points."""
        return self.mean - self.paper if self.mean is not None and self.paper is not None else None


@dataclass(frozen=True)
class AccuracyTable(tables.Shown):
    """A paper's accuracy table and the results of our runs."""

    name: str
    source: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Rows with missing results; their notes say why."""
        return tuple(outcome for outcome in self.outcomes if outcome.note)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about runs that should differ but are equal."""
        return tuple(
            f"warning: {outcome.row} equals {outcome.twin} in every figure of every epoch: varying it had no effect"
            for outcome in self.outcomes
            if outcome.twin
        )

    def __str__(self) -> str:
        columns = ["row", ">paper (%)", ">ours (%)", ">± over seeds", ">deviation", ">epochs", "seeds"]
        with_top5 = any(outcome.top5 or outcome.paper_top5 for outcome in self.outcomes)
        if with_top5:
            columns[3:3] = [">paper top-5", ">ours top-5"]
        rows = [_cells(outcome, with_top5) for outcome in self.outcomes]
        filled = tables.render(columns, rows, title=f"{self.name}: {self.source}; top-1 on the test set")
        reasons = dict.fromkeys(outcome.note for outcome in self.failed)
        notes = [f"{_rows_of(reason, self.failed)}: {reason}" for reason in reasons]
        return "\n".join([filled, *notes, *self.warnings])


def _rows_of(reason: str, failed: Sequence[Outcome]) -> str:
    return ", ".join(outcome.row for outcome in failed if outcome.note == reason)


def _cells(outcome: Outcome, with_top5: bool) -> tuple[str, ...]:
    spread = f"{statistics.stdev(outcome.top1):.2f}" if len(outcome.top1) > 1 else ""
    epochs = outcome.epochs if outcome.top1 else 0
    top5 = (_percent(outcome.paper_top5), _percent(outcome.mean_top5)) if with_top5 else ()
    return (
        outcome.row,
        _percent(outcome.paper),
        _percent(outcome.mean),
        *top5,
        spread,
        "" if outcome.deviation is None else f"{outcome.deviation:+.2f}",
        f"{epochs} of {outcome.planned}" if epochs != outcome.planned else str(epochs),
        " ".join(map(str, outcome.seeds)),
    )


def _percent(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2f}"


def reproduce(
    name: str,
    source: str,
    rows: Sequence[Row],
    output: Path,
    train: Callable[[Recipe, Path], "Run"],
    evaluate: Callable[["Run"], "Result"],
    *,
    epochs: int | None = None,
    seeds: int = 1,
) -> AccuracyTable:
    """Trains each row with one or several seeds, or resumes its runs, and fills the table.

    Runs are written to `OUTPUT/LABEL-seedN`; seeds count up from the recipe's own. All recipes are checked before the
    first one is trained. If a row cannot be trained for another reason, the error is reported and the other rows are
    trained.

    Args:
        name: name of the table.
        source: where the table is printed.
        rows: the rows to train.
        output: folder of the runs.
        train: trains a recipe in a folder, or resumes the run there.
        evaluate: returns the result of a finished run.
        epochs: total epochs of each row; by default the recipe's own.
        seeds: number of runs of each row.

    Raises:
        UsageError: a recipe cannot work; the message names the row.
        InterruptedRunError: SIGINT (Ctrl-C), SIGTERM or SIGHUP was received; finished and interrupted runs are
            kept.
    """
    from kbnn.training import InterruptedRunError

    for row in rows:
        _check(row, _folder(output, row, row.recipe.seed))
    outcomes: list[Outcome] = []
    known: dict[str, str] = {}
    for row in rows:
        done: dict[int, Result] = {}
        note, twin = "", ""
        try:
            for recipe in _recipes(row, epochs, seeds):
                run = train(recipe, _folder(output, row, recipe.seed))
                check_settings(run.recipe, row.settings)
                done[recipe.seed] = evaluate(run)
                twin = _twin(run, f"{row.label} with seed {recipe.seed}", known) or twin
        except InterruptedRunError:
            raise
        except KbnnError as error:
            note = str(error)
        outcomes.append(_outcome(row, epochs, done, note, twin))
    return AccuracyTable(name, source, tuple(outcomes))


def _folder(output: Path, row: Row, seed: int) -> Path:
    """The folder of one of a row's runs."""
    return output / f"{_slug(row.label)}-seed{seed}"


def _check(row: Row, folder: Path) -> None:
    """Raises UsageError if a row's recipe cannot work, whatever the data."""
    from kbnn.datasets import registry
    from kbnn.training import Run
    from kbnn.training.networks import check

    try:
        check(row.recipe, is_new=not Run.exists(folder))
        if row.recipe.data.name is not None:
            registry.check_name(row.recipe.data.name)
    except UsageError as error:
        raise UsageError(f"row '{row.label}': {error}", parameter=error.parameter) from error


def _recipes(row: Row, epochs: int | None, seeds: int) -> Iterator[Recipe]:
    """The recipes of a row's runs.

    Raises:
        UsageError: the number of epochs or the seed overwrites a setting that the row varies.
    """
    for count in range(seeds):
        recipe = row.recipe.shortened(epochs)
        seeded = recipe.model_copy(update={"seed": row.recipe.seed + count})
        check_settings(seeded, row.settings)
        yield seeded


def _twin(run: "Run", name: str, known: dict[str, str]) -> str:
    """The name of an earlier run with the same history, if there is one."""
    history = run.history()
    found = known.setdefault(str(history), name) if history else name
    return "" if found == name else found


def _outcome(row: Row, epochs: int | None, done: "Mapping[int, Result]", note: str, twin: str) -> Outcome:
    top5 = tuple(100 * one.top5 for one in done.values() if one.top5 is not None)
    return Outcome(
        row.label,
        row.paper,
        tuple(100 * one.top1 for one in done.values()),
        epochs or row.recipe.epochs,
        row.recipe.epochs,
        tuple(done),
        note,
        top5,
        row.recipe.paper_top5,
        twin,
    )


def _slug(label: str) -> str:
    """Converts a label to the name of a folder."""
    safe = "".join(letter if letter.isalnum() or letter in "+-._" else "-" for letter in label.lower())
    return safe if safe.strip(".") else "-"
