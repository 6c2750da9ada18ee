"""The folder of a training run.

It holds `config.toml` (the recipe), `dataset.json` (a fingerprint of the images, and how pictures are prepared),
`history.csv`, `checkpoints/`, `model.keras` (last epoch), `best.keras` (best validation accuracy), `logs/` (for
TensorBoard) and, once the run has finished, `result.json`.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tensorflow as tf
from pydantic import BaseModel, Field, FiniteFloat, model_validator

from kbnn import datasets, files, tables
from kbnn.datasets import Fingerprint
from kbnn.errors import KbnnError, UsageError
from kbnn.loading import load_model
from kbnn.training.recipe import DataSettings, Recipe

History = list[dict[str, float]]

_CONFIG = "config.toml"
_DATASET = "dataset.json"
_HISTORY = "history.csv"
_COUNTS = ("stage", "epoch")
# The key of `_DATASET` for the normalization and the fields of the transform that apply to test images.
_INPUT = "input"
# The largest `_DATASET` in bytes; that of 1,000 classes has 40 kB.
_LARGEST = 64_000_000
_TESTING = ("resize", "square", "size")
# The folders in a run that kbnn writes to.
_FOLDERS = ("checkpoints", "logs", "analysis")


class _RecordedInput(BaseModel):
    """How a network takes pictures, in `_DATASET`."""

    mean: tuple[FiniteFloat, ...] = Field(min_length=1)
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = Field(min_length=1)
    resize: int | None = Field(ge=1)
    square: bool
    size: int | None = Field(ge=1)


class _Recorded(BaseModel):
    """The content of `_DATASET`; without a name, there is no fingerprint."""

    name: str | None = None
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    digest: str = ""
    input: _RecordedInput | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "_Recorded":
        if self.name is not None and not {"classes", "counts", "digest"} <= self.model_fields_set:
            raise ValueError("the classes, their counts or the digest are missing")
        return self


class ChangedDataError(UsageError):
    """The images at hand are not those that a run was trained on."""


@dataclass(frozen=True)
class Run(tables.Shown):
    """The folder of a training run, and its content."""

    folder: Path
    recipe: Recipe

    # Everything that training writes into the folder.
    MEMBERS: ClassVar = (
        _CONFIG,
        _DATASET,
        _HISTORY,
        "checkpoints",
        "model.keras",
        "best.keras",
        "logs",
        "result.json",
        "weights.npz",
    )

    def __str__(self) -> str:
        history = self.history()
        text = f"run '{self.folder}' of {self.recipe.name}: {len(history)} of {self.recipe.epochs} epochs"
        accuracies = [row["val_accuracy"] for row in history if "val_accuracy" in row]
        return f"{text}, best validation accuracy {max(accuracies):.2%}" if accuracies else text

    @staticmethod
    def new(folder: str | os.PathLike[str], recipe: Recipe) -> "Run":
        """A run that will be written to a new or empty folder.

        Raises:
            UsageError: the folder is not empty.
        """
        path = Path(folder)
        if (path / _CONFIG).exists():
            raise UsageError(f"run '{path}' already exists: resume it or choose another output folder")
        if path.exists() and (not path.is_dir() or not all(map(files.is_leftover, path.iterdir()))):
            raise UsageError(f"'{path}' exists and is not a run: choose another output folder")
        return Run(path, recipe)

    @staticmethod
    def open(folder: str | os.PathLike[str]) -> "Run":
        """An existing run.

        Raises:
            UsageError: the folder is not a run.
        """
        path = Path(folder)
        if not Run.exists(path):
            raise UsageError(f"'{path}' is not a run (it has no {_CONFIG}): give the output folder of a training")
        return Run(path, Recipe.read(path / _CONFIG, recorded=True))

    @staticmethod
    def exists(folder: str | os.PathLike[str]) -> bool:
        """Whether the folder is a run."""
        return (Path(folder) / _CONFIG).is_file()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def start(self, data: datasets.Dataset) -> None:
        """Writes the recipe and the data's fingerprint, unless the run has both already."""
        if not Run.exists(self.folder) or Run.open(self.folder).recipe != self.recipe:
            self.recipe.write(self.folder / _CONFIG)
        if self.fingerprint() is None:
            known = {**dataclasses.asdict(data.fingerprint()), _INPUT: _input(data)}
            files.write(self.folder / _DATASET, json.dumps(known, indent=2) + "\n")

    def has(self, which: str) -> bool:
        """Whether the file of `model` or `best` exists."""
        return (self.folder / f"{which}.keras").is_file()

    def model(self, which: str = "model") -> tf.keras.Model:
        """The model of the last finished epoch, or with `best`, of the epoch with the best validation accuracy.

        Raises:
            KbnnError: no epoch has finished, or the file is damaged.
        """
        path = self.folder / f"{which}.keras"
        if not self.has(which):
            raise KbnnError(f"run '{self.folder}' has no {path.name}: resume it, or restore the file")
        return load_model(path)

    def save(self, model: tf.keras.Model, which: str = "model") -> None:
        """Writes `model.keras` or `best.keras` atomically."""
        files.check_clock()
        with files.replacing(self.folder / f"{which}.keras") as temporary:
            model.save(temporary)

    def keep_as_best(self) -> None:
        """Copies `model.keras` to `best.keras`, as a hard link if the file system supports it."""
        with files.replacing(self.folder / "best.keras") as temporary:
            try:
                os.link(self.folder / "model.keras", temporary)
            except OSError:
                temporary.write_bytes((self.folder / "model.keras").read_bytes())

    def dataset(self, data_dir: str | os.PathLike[str] | None = None) -> datasets.Dataset:
        """The data set that the run trains on.

        Raises:
            UsageError: the data was passed in Python, or the images are not those that the run was trained on.
        """
        data = load_data(self.recipe.data, data_dir)
        self.check_data(data)
        return data

    @property
    def has_source(self) -> bool:
        """Whether the recipe names the data; if not, it was passed in Python."""
        return self.recipe.data.name is not None or self.recipe.data.folder is not None

    def fingerprint(self) -> Fingerprint | None:
        """The fingerprint of the run's images; None before the run starts, and for runs of version 0.1.

        Raises:
            KbnnError: the file is damaged.
        """
        with self._recorded() as text:
            found = _Recorded.model_validate_json(text)
            if found.name is None:
                return None
            return Fingerprint(found.name, found.classes, found.counts, found.digest)

    def preparation(self) -> tuple[datasets.Normalization, datasets.Transform] | None:
        """How the run's network takes pictures; None if it was trained on float images, or the run does not record it.

        Raises:
            KbnnError: the file is damaged.
        """
        with self._recorded() as text:
            found = _Recorded.model_validate_json(text).input
            if found is None:
                return None
            transform = datasets.Transform(**found.model_dump(include=set(_TESTING)))
            return datasets.Normalization(found.mean, found.std), transform

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[str]:
        """The JSON in `dataset.json`, an empty object if there is none; errors in reading it become KbnnError."""
        path = self.folder / _DATASET
        try:
            if path.is_file() and path.stat().st_size > _LARGEST:
                raise ValueError(f"it has more than {_LARGEST:,} bytes")
            yield path.read_text() if path.is_file() else "{}"
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise KbnnError(f"'{path}' is damaged ({reason}): restore it, or start a new run") from error

    def check_data(self, data: datasets.Dataset) -> None:
        """Checks that a data set has the images that the run was trained on.

        Raises:
            UsageError: it does not; the message names the difference.
        """
        known = self.fingerprint()
        difference = None if known is None else known.difference(data.fingerprint())
        if difference:
            raise ChangedDataError(
                f"data set '{data.name}' is not the one that run '{self.folder}' was trained on: {difference}; restore "
                f"it, or start a new run"
            )

    def check_classes(self, data: datasets.Dataset) -> None:
        """Checks that a data set has the classes that the run was trained on; its images may be others.

        Raises:
            UsageError: it does not; the message names the difference.
        """
        known = self.fingerprint()
        # Data that is passed in Python may have no names of classes, only numbers.
        if known is None or (known.classes == tuple(map(str, range(len(data.classes))))):
            return
        difference = known.difference(dataclasses.replace(known, classes=data.classes))
        if difference:
            raise ChangedDataError(
                f"data set '{data.name}' does not have the classes that run '{self.folder}' was trained on: "
                f"{difference}; give data with the same classes"
            )

    def history(self) -> History:
        """One row for each finished epoch; stages may have different columns.

        Raises:
            KbnnError: the file is damaged.
        """
        path = self.folder / _HISTORY
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            rows = csv.DictReader(file, strict=True)
            try:
                return [_figures(row) for row in rows]
            except (ValueError, TypeError, KeyError, csv.Error) as error:
                line = max(rows.line_num, 1)
                raise KbnnError(f"'{path}' is damaged in line {line}: restore it, or start a new run") from error

    def write_history(self, rows: History) -> None:
        """Writes `history.csv` atomically."""
        text = io.StringIO()
        columns = dict.fromkeys(column for row in rows for column in row)
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write(self.folder / _HISTORY, text.getvalue())

    def check_folders(self) -> None:
        """Checks that the folders that kbnn writes to are in the run, and not links that come from somebody else.

        Raises:
            UsageError: one of them is a link to another place.
        """
        for name in _FOLDERS:
            path = self.folder / name
            if path.is_symlink() and self.folder.resolve() not in path.resolve().parents:
                raise UsageError(
                    f"'{path}' is a link to '{path.resolve()}', outside of the run: replace it with a folder, or move "
                    f"the whole run there"
                )

    def remove_leftovers(self) -> None:
        """Removes temporary files that killed processes left behind."""
        files.remove_leftovers(self.folder)
        files.remove_leftovers(self.checkpoints)


def _figures(row: dict[str, str]) -> dict[str, float]:
    """A row's numbers; every row has a stage and an epoch."""
    counts: dict[str, float] = {key: int(row[key]) for key in _COUNTS}
    return {**counts, **{key: float(value) for key, value in row.items() if value and key not in _COUNTS}}


def _input(data: datasets.Dataset) -> dict[str, object] | None:
    """How the network takes pictures; None for float images, which are not pictures."""
    if not data.takes_pixels:
        return None
    transform = {name: getattr(data.framing, name) for name in _TESTING}
    return {"mean": data.normalization.mean, "std": data.normalization.std, **transform}


def load_data(settings: DataSettings, data_dir: str | os.PathLike[str] | None = None) -> datasets.Dataset:
    """The data set that a recipe names.

    Raises:
        UsageError: the recipe names none.
    """
    transform = settings.transform()
    if settings.folder is not None:
        if not Path(settings.folder).is_dir():
            raise UsageError(
                f"no folder of images at '{settings.folder}': give one with a sub-folder for each class",
                parameter="data",
            )
        return datasets.load_folder(
            settings.folder,
            validation=settings.validation,
            transform=transform,
            unreadable=settings.unreadable,
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
        )
    if settings.name is None:
        raise UsageError("the recipe names no data: give data.name or data.folder, or pass data in Python")
    return datasets.load(settings.name, validation=settings.validation, data_dir=data_dir, transform=transform)


def given_data(data: datasets.Given, settings: DataSettings) -> datasets.Dataset:
    """A data set from data passed in Python, split and augmented as in a recipe; a `Dataset` is returned unchanged."""
    transform = settings.transform() or datasets.Transform()
    return datasets.of(data, validation=settings.validation, transform=transform)
