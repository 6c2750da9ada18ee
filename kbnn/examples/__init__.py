"""Pretrained example files: small trained networks that ship with kbnn, and test images to try them on.

Each is a bitpacked `.tflite` file, named by its SHA-256 hash.

>>> example = kbnn.examples.get("resnet20-xnor-cifar10")
>>> audit = kbnn.converters.inspect(example.path)
"""

import csv
import importlib.resources
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kbnn import files
from kbnn.errors import KbnnError, unknown

INDEX = "examples.csv"


@dataclass(frozen=True)
class Example:
    """A pretrained file, with its data set, epochs of training, and top-1 accuracy (0 to 1) on the test set."""

    name: str
    path: Path
    dataset: str
    epochs: int
    test_top1: float


@dataclass(frozen=True)
class Samples:
    """Test images of a data set: uint8 `(N, H, W, C)`, labels `(N,)`, and the normalization of the network's input."""

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
    """Names of the pretrained files."""
    return sorted(_index())


def get(name: str) -> Example:
    """A pretrained file, checked against its hash.

    Raises:
        UsageError: an unknown name; the closest names are suggested.
        KbnnError: the file is missing or damaged.
    """
    index = _index()
    if name not in index:
        raise unknown("pretrained file", name, index)
    row = index[name]
    path = _folder() / row["file"]
    if not files.is_intact(path, row["sha256"]):
        raise KbnnError(f"pretrained file '{name}' is damaged: '{path}' is missing or changed; reinstall kbnn")
    return Example(name, path, row["dataset"], int(row["epochs"]), float(row["test_top1"]))


def samples(dataset: str) -> Samples:
    """Test images of a data set that ship with kbnn.

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
