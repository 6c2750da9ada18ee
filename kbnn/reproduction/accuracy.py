"""Accuracy tables: recipes trained for as many epochs as one has time for, beside the paper's figures."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbnn import tables
from kbnn.errors import KbnnError, UsageError
from kbnn.training import InterruptedRunError, Recipe, Run


@dataclass(frozen=True)
class Row:
    """One row of a table: its label, the recipe that trains it, and the paper's top-1 accuracy in per cent."""

    label: str
    recipe: Recipe
    paper: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What a row came to: top-1 accuracies in per cent on the held-out test set, one for each seed that finished.

    `epochs` were trained for each, of the recipe's `planned`; `note` says why there are fewer results than asked for.
    """

    row: str
    paper: float | None
    top1: tuple[float, ...]
    epochs: int
    planned: int
    seeds: tuple[int, ...]
    note: str = ""

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.top1) if self.top1 else None

    @property
    def deviation(self) -> float | None:
        """Ours minus the paper's, in percentage points."""
        return self.mean - self.paper if self.mean is not None and self.paper is not None else None


@dataclass(frozen=True)
class AccuracyTable:
    """A paper's accuracy table and what our runs came to."""

    name: str
    source: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Rows that lack a result; their notes say why."""
        return tuple(outcome for outcome in self.outcomes if outcome.note)

    def __str__(self) -> str:
        columns = ("row", ">paper (%)", ">ours (%)", ">± over seeds", ">deviation", ">epochs", "seeds")
        rows = [_cells(outcome) for outcome in self.outcomes]
        filled = tables.render(columns, rows, title=f"{self.name}: {self.source}; top-1 on the test set")
        reasons = dict.fromkeys(outcome.note for outcome in self.failed)
        notes = [f"{_rows_of(reason, self.failed)}: {reason}" for reason in reasons]
        return "\n".join([filled, *notes])


def _rows_of(reason: str, failed: Sequence[Outcome]) -> str:
    return ", ".join(outcome.row for outcome in failed if outcome.note == reason)


def _cells(outcome: Outcome) -> tuple[str, ...]:
    spread = f"{statistics.stdev(outcome.top1):.2f}" if len(outcome.top1) > 1 else ""
    epochs = outcome.epochs if outcome.top1 else 0
    return (
        outcome.row,
        "" if outcome.paper is None else f"{outcome.paper:.2f}",
        "" if outcome.mean is None else f"{outcome.mean:.2f}",
        spread,
        "" if outcome.deviation is None else f"{outcome.deviation:+.2f}",
        f"{epochs} of {outcome.planned}" if epochs != outcome.planned else str(epochs),
        " ".join(map(str, outcome.seeds)),
    )


def shortened(recipe: Recipe, epochs: int | None) -> Recipe:
    """The recipe with so many epochs in all, shared among its stages as they were; schedules shrink with them.

    Raises:
        UsageError: fewer epochs than stages.
    """
    if epochs is None or epochs == recipe.epochs:
        return recipe
    if epochs < len(recipe.stage):
        raise UsageError(f"recipe '{recipe.name}' has {len(recipe.stage)} stages: received {epochs} epochs, give more")
    return recipe.model_copy(update={"stage": _share(recipe, epochs)})


def _share(recipe: Recipe, epochs: int) -> tuple[Any, ...]:
    left, planned, stages = epochs, recipe.epochs, []
    for place, stage in enumerate(recipe.stage):
        following = len(recipe.stage) - place - 1
        count = min(max(1, round(left * stage.epochs / planned)), left - following)
        stages.append(stage.shortened(count))
        left, planned = left - count, planned - stage.epochs
    return tuple(stages)


def reproduce(
    name: str,
    source: str,
    rows: Sequence[Row],
    output: Path,
    train: Callable[[Recipe, Path], Run],
    evaluate: Callable[[Run], float],
    *,
    epochs: int | None = None,
    seeds: Sequence[int] = (0,),
) -> AccuracyTable:
    """Trains each row with each seed, or goes on where that stopped, and fills the table.

    A run is `OUTPUT/LABEL-seedN`. A row whose data is not there is reported and left out.

    Args:
        name: of the table.
        source: of the table.
        rows: what to train.
        output: folder of the runs.
        train: trains a recipe into a folder, resuming what is there.
        evaluate: top-1 accuracy in per cent of a finished run on the test set.
        epochs: epochs of each row in all; the recipe's own when not given.
        seeds: one run each.

    Raises:
        InterruptedRunError: SIGTERM or Ctrl-C came; what was trained is kept.
    """
    outcomes = []
    for row in rows:
        recipe = shortened(row.recipe, epochs)
        done: dict[int, float] = {}
        note = ""
        for seed in seeds:
            try:
                run = train(recipe.model_copy(update={"seed": seed}), output / f"{_slug(row.label)}-seed{seed}")
                done[seed] = evaluate(run)
            except InterruptedRunError as error:
                raise InterruptedRunError(error.what, error.received, "the same command") from error
            except KbnnError as error:
                note = str(error)
                break
        outcomes.append(
            Outcome(row.label, row.paper, tuple(done.values()), recipe.epochs, row.recipe.epochs, tuple(done), note)
        )
    return AccuracyTable(name, source, tuple(outcomes))


def _slug(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "+-._" else "-" for letter in label.lower())
