"""A run is a folder: `config.toml`, `history.csv`, `checkpoints/`, `model.keras`, `logs/`."""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from kbnn import datasets, files
from kbnn.errors import KbnnError, UsageError
from kbnn.training.recipe import Recipe

History = list[dict[str, float]]


@dataclass(frozen=True)
class Run:
    """The folder of a training run, and what is in it."""

    folder: Path
    recipe: Recipe

    @staticmethod
    def create(folder: str | os.PathLike[str], recipe: Recipe) -> "Run":
        """Starts a run in a new or empty folder.

        Raises:
            UsageError: the folder holds something already.
            KbnnError: the folder cannot be written.
        """
        path = Path(folder)
        if (path / "config.toml").exists():
            raise UsageError(f"run '{path}' exists already: resume it (--resume) or choose another output folder")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"'{path}' exists and is not a run: choose another output folder")
        recipe.write(path / "config.toml")
        return Run(path, recipe)

    @staticmethod
    def open(folder: str | os.PathLike[str]) -> "Run":
        """An existing run.

        Raises:
            UsageError: the folder is not a run.
        """
        path = Path(folder)
        if not (path / "config.toml").is_file():
            raise UsageError(f"'{path}' is not a run (it has no config.toml): give the output folder of `kbnn train`")
        return Run(path, Recipe.read(path / "config.toml"))

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def model(self) -> tf.keras.Model:
        """The trained model, as of the last finished epoch.

        Raises:
            KbnnError: no epoch has finished, or the file is damaged.
        """
        path = self.folder / "model.keras"
        if not path.is_file():
            raise KbnnError(f"run '{self.folder}' has no model yet: train it (kbnn train --resume)")
        return load_model(path)

    def save(self, model: tf.keras.Model) -> None:
        """Writes `model.keras`, by rename."""
        with files.replacing(self.folder / "model.keras") as temporary:
            model.save(temporary)

    def dataset(self, data_dir: str | os.PathLike[str] | None = None) -> datasets.Dataset:
        """The data set that the run trains on."""
        return datasets.load(self.recipe.data.name, validation=self.recipe.data.validation, data_dir=data_dir)

    def history(self) -> History:
        """One row for each finished epoch."""
        path = self.folder / "history.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

    def write_history(self, rows: History) -> None:
        """Writes `history.csv`, by rename."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write(self.folder / "history.csv", text.getvalue())


def load_model(path: str | os.PathLike[str]) -> tf.keras.Model:
    """A model from a `.keras` file.

    Raises:
        UsageError: there is no such file, or it has another ending.
        KbnnError: the file is damaged, or holds a layer that is not registered.
    """
    file = Path(path)
    if not file.is_file() or file.suffix != ".keras":
        raise UsageError(f"cannot load a model: received '{file}', give a run's folder or an existing .keras file")
    try:
        return tf.keras.models.load_model(file, compile=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise KbnnError(f"'{file}' is not a readable Keras model ({reason}): save it again with model.save") from error
