"""A run is a folder.

`config.toml` (the recipe), `history.csv`, `checkpoints/`, `model.keras` (the last epoch's), `best.keras` (of the epoch
that validated best), `logs/` (TensorBoard's) and, when it has finished, `result.json`.
"""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tensorflow as tf

from kbnn import datasets, files
from kbnn.errors import KbnnError, UsageError
from kbnn.loading import load_model
from kbnn.training.recipe import Recipe

History = list[dict[str, float]]

_CONFIG = "config.toml"
_HISTORY = "history.csv"
_COUNTS = ("stage", "epoch")


@dataclass(frozen=True)
class Run:
    """The folder of a training run, and what is in it."""

    folder: Path
    recipe: Recipe

    # Everything that training writes into the folder.
    MEMBERS: ClassVar = (
        _CONFIG,
        _HISTORY,
        "checkpoints",
        "model.keras",
        "best.keras",
        "logs",
        "result.json",
        "weights.npz",
    )

    @staticmethod
    def new(folder: str | os.PathLike[str], recipe: Recipe) -> "Run":
        """A run that is to be written to a new or empty folder.

        Raises:
            UsageError: the folder holds something already.
        """
        path = Path(folder)
        if (path / _CONFIG).exists():
            raise UsageError(f"run '{path}' exists already: resume it (--resume) or choose another output folder")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
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
            raise UsageError(f"'{path}' is not a run (it has no {_CONFIG}): give the output folder of `kbnn train`")
        return Run(path, Recipe.read(path / _CONFIG))

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

    def write_config(self) -> None:
        """Makes the folder a run."""
        self.recipe.write(self.folder / _CONFIG)

    def has(self, which: str) -> bool:
        """Whether there is a `model` or a `best` to load."""
        return (self.folder / f"{which}.keras").is_file()

    def model(self, which: str = "model") -> tf.keras.Model:
        """The trained model as of the last finished epoch, or (`best`) as of the one that validated best.

        Raises:
            KbnnError: no epoch has finished, or the file is damaged.
        """
        path = self.folder / f"{which}.keras"
        if not self.has(which):
            raise KbnnError(f"run '{self.folder}' has no {path.name}: go on training (--resume), or put it back")
        return load_model(path)

    def save(self, model: tf.keras.Model, which: str = "model") -> None:
        """Writes `model.keras` or `best.keras`, by rename."""
        files.check_clock()
        with files.replacing(self.folder / f"{which}.keras") as temporary:
            model.save(temporary)

    def dataset(self, data_dir: str | os.PathLike[str] | None = None) -> datasets.Dataset:
        """The data set that the run trains on."""
        settings = self.recipe.data
        given = settings.model_dump(include={"pad", "flip", "resize", "square", "size", "scale"}, exclude_unset=True)
        transform = datasets.Transform(**given) if given else None
        if settings.folder is not None:
            return datasets.load_folder(
                settings.folder,
                validation=settings.validation,
                transform=transform,
                unreadable=settings.unreadable,
                max_bytes=settings.max_bytes,
                max_pixels=settings.max_pixels,
            )
        return datasets.load(str(settings.name), validation=settings.validation, data_dir=data_dir, transform=transform)

    def history(self) -> History:
        """One row for each finished epoch; a stage may lack what another one has.

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
                raise KbnnError(f"'{path}' is damaged in line {line}: put it back, or start a new run") from error

    def write_history(self, rows: History) -> None:
        """Writes `history.csv`, by rename."""
        text = io.StringIO()
        columns = dict.fromkeys(column for row in rows for column in row)
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write(self.folder / _HISTORY, text.getvalue())


def _figures(row: dict[str, str]) -> dict[str, float]:
    """A row's numbers; every row counts its stage and epoch."""
    counts: dict[str, float] = {key: int(row[key]) for key in _COUNTS}
    return {**counts, **{key: float(value) for key, value in row.items() if value and key not in _COUNTS}}
