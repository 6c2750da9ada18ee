"""How often a file gives the class that a network gives, and how often both are right."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Outputs = Mapping[str, np.ndarray]
# The normal distribution's 97.5 % quantile.
_Z = 1.959964


@dataclass(frozen=True)
class OutputAgreement:
    """How often two networks give the same class at one output: per image, or per pixel of a map."""

    name: str
    top1_agreement: float
    is_map: bool

    def __str__(self) -> str:
        return f"{self.top1_agreement:.1%} of the {'pixels' if self.is_map else 'images'}"


@dataclass(frozen=True)
class AccuracyInterval:
    """The share of images in their true class, with the 95 % interval of Wilson's score."""

    top1: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.top1:.1%} ({self.low:.1%} to {self.high:.1%})"


def agreements(expected: Outputs, found: Outputs) -> list[OutputAgreement]:
    """The agreement at each output that tells classes apart, in the order of their names."""
    return [
        OutputAgreement(name, float(np.mean(values.argmax(-1) == found[name].argmax(-1))), values.ndim > 2)
        for name, values in sorted(expected.items())
        if values.ndim > 1 and values.shape[-1] > 1
    ]


def least(found: list[OutputAgreement]) -> float:
    """The agreement at the output where it is worst; 1 where no output tells classes apart."""
    return min((output.top1_agreement for output in found), default=1.0)


def accuracy(outputs: Outputs, labels: np.ndarray) -> AccuracyInterval | None:
    """The accuracy of a classifier `(B, classes)` on labelled images; None for networks of other kinds."""
    heads = [values for values in outputs.values() if values.ndim == 2 and values.shape[1] > 1]
    if len(heads) != 1 or len(outputs) != 1 or len(labels) != len(heads[0]) or not len(labels):
        return None
    share, count = float(np.mean(heads[0].argmax(1) == labels)), len(labels)
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    reach = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return AccuracyInterval(share, max(0.0, centre - reach), min(1.0, centre + reach))
