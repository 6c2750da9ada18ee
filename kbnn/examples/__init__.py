"""Trained networks small enough to ship: bitpacked files named by their hash, and images to try them on.

>>> example = kbnn.examples.get("resnet20-xnor-cifar10")
>>> audit = kbnn.converters.inspect(example.path)
"""

import csv
import hashlib
import importlib.resources
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kbnn.errors import KbnnError, unknown

INDEX = "examples.csv"


@dataclass(frozen=True)
class Example:
    """One file: what it is, how long it trained, and its top-1 accuracy on the whole test set, a share."""

    name: str
    path: Path
    dataset: str
    epochs: int
    test_top1: float


@dataclass(frozen=True)
class Samples:
    """Images of a data set's test split: uint8 `(N, H, W, C)`, labels `(N,)`, and how pixels become network input."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """The network's input, float32."""
        return ((self.images - self.mean) / self.std).astype(np.float32)


def names() -> list[str]:
    """The examples that ship."""
    return sorted(_index())


def get(name: str) -> Example:
    """An example, whose file has been checked against its hash.

    Raises:
        UsageError: an unknown name; near names are offered.
        KbnnError: the file is missing, or is not the one that was measured.
    """
    index = _index()
    if name not in index:
        raise unknown("example", name, index)
    row = index[name]
    path = _folder() / row["file"]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
        raise KbnnError(f"example '{name}' is damaged: '{path}' has not the hash {row['sha256'][:12]}; reinstall kbnn")
    return Example(name, path, row["dataset"], int(row["epochs"]), float(row["test_top1"]))


def samples(dataset: str) -> Samples:
    """The images that ship for a data set.

    Raises:
        KbnnError: there are none.
    """
    path = _folder() / f"{dataset}.npz"
    if not path.is_file():
        raise KbnnError(f"no sample images of '{dataset}' ship with kbnn: use its test split (kbnn.datasets.load)")
    with path.open("rb") as file:
        stored = dict(np.load(file))
    return Samples(stored["images"], stored["labels"], tuple(stored["classes"].tolist()), stored["mean"], stored["std"])


def _index() -> dict[str, dict[str, str]]:
    with (_folder() / INDEX).open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _folder() -> Path:
    return Path(str(importlib.resources.files("kbnn.examples")))
