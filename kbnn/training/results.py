"""Accuracy on the test set, and the result of a run compared with the paper."""

import dataclasses
import json
from dataclasses import dataclass

import pydantic
import pydantic_core
import tensorflow as tf

from kbnn import files, tables
from kbnn.datasets import Dataset
from kbnn.errors import KbnnError
from kbnn.precision import in_float32
from kbnn.training import catalog
from kbnn.training.keeper import best_epoch
from kbnn.training.learner import Learner
from kbnn.training.run import Run

_FILE = "result.json"


@dataclass(frozen=True)
class Evaluation(tables.Shown):
    """Accuracies and mean cross-entropy (nats) over a test set; `top5` is None with five classes or fewer."""

    dataset: str
    samples: int
    top1: float
    loss: float
    top5: float | None = None

    def __str__(self) -> str:
        return (
            f"{self.dataset} test: {_accuracies(self.top1, self.top5)} of {self.samples} images, loss {self.loss:.4f}"
        )


def _accuracies(top1: float, top5: float | None) -> str:
    return f"top-1 {top1:.2%}" + ("" if top5 is None else f", top-5 {top5:.2%}")


def evaluate(model: tf.keras.Model, data: Dataset, batch: int = 500) -> Evaluation:
    """Evaluates a model that returns logits on the test split, in float32, as it is deployed.

    A model that was trained under mixed precision is rebuilt in float32 with the same weights.

    Raises:
        UsageError: the model's input shape or number of classes is not the data set's.
        KbnnError: a subclassed model computes in another type and cannot be rebuilt.
    """
    data.check_fits(model.input_shape[1:], model.output_shape[-1])
    learner = Learner(in_float32(model))
    # Tracing a graph takes as long as evaluating a small data set; on a large one, eager calls cost little.
    learner.compile(run_eagerly=True)
    learner.evaluate(data.batches(data.test, batch), verbose=0)
    # Divided in Python, because quotients in float32 are rounded.
    means = {metric.name: float(metric.total) / float(metric.count) for metric in learner.metrics}
    return Evaluation(data.name, data.test.size, means["accuracy"], means["loss"], means.get("top5"))


@dataclass(frozen=True)
class Result(tables.Shown):
    """Accuracies on the test set: of the last epoch, of the epoch with the best validation accuracy, and the paper's.

    `changes` are the settings that differ from the shipped recipe of the same name; `top5` is None with five classes or
    fewer.
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
    top5: float | None = None
    best_top5: float | None = None
    paper_top5: float | None = None

    def __str__(self) -> str:
        best = _accuracies(self.best_top1, self.best_top5) if self.best_top1 is not None else ""
        lines = [
            f"{self.run}: {self.recipe}, {self.epochs} epoch{'' if self.epochs == 1 else 's'}",
            str(Evaluation(self.dataset, self.samples, self.top1, self.loss, self.top5))
            + (f"; epoch with the best validation accuracy: {best}" if best else ""),
        ]
        if self.paper is not None:
            away = 100 * self.top1 - self.paper
            top5 = f", top-5 {self.paper_top5:.2f} %" if self.paper_top5 is not None else ""
            source = self.source or "no source given"
            lines.append(f"paper: {self.paper:.2f} %{top5} ({source}); ours is {away:+.2f} points away")
        if self.paper is not None and self.changes:
            lines.append(f"with other settings than the paper's: {'; '.join(self.changes)}")
        return "\n".join(lines)


def conclude(run: Run, data: Dataset) -> Result:
    """Evaluates a finished run and writes `result.json`."""
    last = evaluate(run.model(), data)
    best = _best(run, data, last)
    found = Result(
        str(run.folder),
        run.recipe.name,
        data.name,
        len(run.history()),
        last.samples,
        last.top1,
        last.loss,
        best.top1 if best else None,
        run.recipe.paper,
        run.recipe.source,
        tuple(catalog.deviations(run.recipe)),
        last.top5,
        best.top5 if best else None,
        run.recipe.paper_top5,
    )
    files.write(run.folder / _FILE, json.dumps(dataclasses.asdict(found), indent=2) + "\n")
    return found


def _best(run: Run, data: Dataset, last: Evaluation) -> Evaluation | None:
    """The evaluation of the epoch with the best validation accuracy, which may be the last one."""
    if not run.has("best"):
        return None
    history = run.history()
    if best_epoch(history, int(history[-1]["stage"]) - 1) == history[-1]["epoch"]:
        return last
    return evaluate(run.model("best"), data)


def has_result(run: Run) -> bool:
    """Whether the run has finished."""
    return (run.folder / _FILE).is_file()


def result(run: Run) -> Result:
    """The result of a finished run.

    Raises:
        KbnnError: the run has not finished, or the file is damaged.
    """
    path = run.folder / _FILE
    if not has_result(run):
        raise KbnnError(f"run '{run.folder}' has not finished: resume it")
    try:
        values = pydantic_core.from_json(path.read_bytes())
        # The folder may have been moved since.
        return pydantic.TypeAdapter(Result).validate_python({**values, "run": str(run.folder)})
    except (ValueError, TypeError) as error:
        reason = _reason(error)
        raise KbnnError(f"'{path}' is damaged ({reason}): remove it and resume the run to write it again") from error


def _reason(error: Exception) -> str:
    """An error in one line; of wrong values, their names and what is wrong with them."""
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return str(error)
