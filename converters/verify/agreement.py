"""How often a file predicts the same class as its network, and how often each of them is right.

An output with several values in the last axis scores classes. A single value between 0 and 1 is the probability of one
of two classes, decided at 0.5 as by Keras's `binary_accuracy`. Other outputs, such as those of a regression, predict no
classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kbnn.intervals import wilson

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class OutputAgreement:
    """How often two networks predict the same class at one output: per image, or per pixel of a map."""

    name: str
    top1_agreement: float
    is_map: bool

    def __str__(self) -> str:
        return f"{self.top1_agreement:.1%} of the {'pixels' if self.is_map else 'images'}"


@dataclass(frozen=True)
class AccuracyInterval:
    """The top-1 accuracy, with its 95 % confidence interval (Wilson score)."""

    top1: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.top1:.1%} ({self.low:.1%} to {self.high:.1%})"


def class_scores(values: np.ndarray, like: np.ndarray | None = None) -> np.ndarray | None:
    """An output as `(B, ..., classes)`: a single probability p becomes 1 - p and p. None if it predicts no classes.

    Args:
        values: the output, `(B, ..., C)` or `(B,)`.
        like: the output that tells whether a single value is a probability, if not `values` itself.
    """
    if values.ndim > 1 and values.shape[-1] > 1:
        return values
    known = np.asarray(values if like is None else like)
    if not known.size or known.dtype.kind != "f" or not np.all((known >= 0) & (known <= 1)):
        return None
    single = values if values.ndim > 1 else values[:, np.newaxis]
    return np.concatenate([1 - single, single], axis=-1)


def agreements(expected: Outputs, found: Outputs) -> list[OutputAgreement]:
    """The agreement at each output that predicts classes, in the order of the outputs' names."""
    made = []
    for name, values in sorted(expected.items()):
        ours, theirs = class_scores(values), class_scores(found[name], like=values)
        if ours is not None and theirs is not None:
            made.append(OutputAgreement(name, float(np.mean(ours.argmax(-1) == theirs.argmax(-1))), ours.ndim > 2))
    return made


def without_classes(outputs: Outputs) -> list[str]:
    """The names of the outputs that predict no classes, which agree or differ in their values only."""
    return [name for name, values in sorted(outputs.items()) if class_scores(values) is None]


def least(found: list[OutputAgreement]) -> float:
    """The agreement at the worst output; 1 if no output predicts classes."""
    return min((output.top1_agreement for output in found), default=1.0)


def accuracy(outputs: Outputs, labels: np.ndarray) -> AccuracyInterval | None:
    """The accuracy of a classifier with outputs `(B, classes)` on labelled images; None for other networks."""
    scores = [class_scores(values) for values in outputs.values()]
    heads = [values for values in scores if values is not None and values.ndim == 2]
    if len(heads) != 1 or len(outputs) != 1 or len(labels) != len(heads[0]) or not len(labels):
        return None
    hits = int(np.sum(heads[0].argmax(1) == labels))
    return AccuracyInterval(hits / len(labels), *wilson(hits, len(labels)))
