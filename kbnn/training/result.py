"""How a run ended: accuracy on the test set, beside the paper's."""

import dataclasses
import json
from dataclasses import dataclass

from kbnn import files
from kbnn.datasets import Dataset
from kbnn.errors import KbnnError
from kbnn.training import catalog
from kbnn.training.evaluate import Evaluation, evaluate
from kbnn.training.keeper import best_epoch
from kbnn.training.run import Run

_FILE = "result.json"


@dataclass(frozen=True)
class Result:
    """Top-1 accuracies on the test set: of the last epoch, of the one that validated best, and the paper's.

    `changes` are the settings that were others than those of the shipped recipe of that name.
    """

    run: str
    recipe: str
    dataset: str
    epochs: int
    samples: int
    top1: float
    loss: float
    best_top1: float | None
    paper: float | None
    source: str | None
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        best = "" if self.best_top1 is None else f"; {self.best_top1:.2%} of the epoch that validated best"
        lines = [
            f"{self.run}: {self.recipe}, {self.epochs} epochs",
            f"{self.dataset} test: top-1 {self.top1:.2%} of {self.samples} images, loss {self.loss:.4f}{best}",
        ]
        if self.paper is not None:
            away = 100 * self.top1 - self.paper
            lines.append(f"paper: {self.paper:.2f} % ({self.source or 'no source given'}), {away:+.2f} points from it")
        if self.paper is not None and self.changes:
            lines.append(f"with other settings than the paper's: {'; '.join(self.changes)}")
        return "\n".join(lines)


def conclude(run: Run, data: Dataset) -> Result:
    """Evaluates a finished run and writes `result.json`."""
    last = evaluate(run.model(), data)
    result = Result(
        str(run.folder),
        run.recipe.name,
        data.name,
        len(run.history()),
        last.samples,
        last.top1,
        last.loss,
        _best(run, data, last),
        run.recipe.paper,
        run.recipe.source,
        tuple(catalog.deviations(run.recipe)),
    )
    files.write(run.folder / _FILE, json.dumps(dataclasses.asdict(result), indent=2) + "\n")
    return result


def _best(run: Run, data: Dataset, last: Evaluation) -> float | None:
    """Top-1 of the epoch that validated best, which may be the last one."""
    if not run.has("best"):
        return None
    history = run.history()
    if best_epoch(history, int(history[-1]["stage"]) - 1) == history[-1]["epoch"]:
        return last.top1
    return evaluate(run.model("best"), data).top1


def has_result(run: Run) -> bool:
    """Whether the run has finished."""
    return (run.folder / _FILE).is_file()


def result(run: Run) -> Result:
    """How a finished run ended.

    Raises:
        KbnnError: it has not finished, or the file is damaged.
    """
    path, again = run.folder / _FILE, f"kbnn train --output {run.folder} --resume"
    if not has_result(run):
        raise KbnnError(f"run '{run.folder}' has not finished: go on with {again}")
    try:
        values = json.loads(path.read_text())
        # Wherever the folder has gone since.
        return Result(**{**values, "run": str(run.folder), "changes": tuple(values.get("changes", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise KbnnError(f"'{path}' is damaged ({error}): remove it, and write it again with {again}") from error
