"""A recipe: everything that decides a training run, typed, as one TOML file."""

import difflib
import os
import sys
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kbnn import files
from kbnn.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Settings(BaseModel):
    """A table of a recipe; unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSettings(Settings):
    """`[data]`: which images, and how they are fed."""

    name: str
    validation: float = Field(0.1, ge=0, lt=1)
    batch: int = Field(128, ge=1)
    pad: int = Field(0, ge=0)
    flip: bool = False


class ModelSettings(Settings):
    """`[model]`: the architecture, the method, and the architecture's options."""

    name: str
    method: str
    options: dict[str, Any] = Field(default_factory=dict)


class Stage(Settings):
    """`[[stage]]`: epochs under one optimizer and one schedule."""

    epochs: int = Field(ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(5e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = "cosine"


class Recipe(Settings):
    """A whole recipe."""

    name: str
    seed: int = 0
    data: DataSettings
    model: ModelSettings
    stage: tuple[Stage, ...] = Field(min_length=1, strict=False)

    @staticmethod
    def of(
        model: str, method: str, dataset: str, *, epochs: int = 60, batch: int = 128, seed: int = 0, **options: Any
    ) -> "Recipe":
        """A recipe with common defaults: Adam, its learning rate falling to 0 along a cosine, random shifts and flips.

        Digits are shifted by up to a pixel and not mirrored; other images by up to four, as is usual for CIFAR.

        Raises:
            UsageError: a value is out of range.
        """
        augmentation = {"pad": 1} if dataset == "digits" else {"pad": 4, "flip": True}
        return Recipe.parse(
            {
                "name": f"{model}-{method}-{dataset}",
                "seed": seed,
                "data": {"name": dataset, "batch": batch, **augmentation},
                "model": {"name": model, "method": method, "options": options},
                "stage": [{"epochs": epochs}],
            }
        )

    @staticmethod
    def parse(values: dict[str, Any]) -> "Recipe":
        """A recipe from plain tables.

        Raises:
            UsageError: a key is unknown (near ones are offered), missing, or has a wrong type or value.
        """
        try:
            return Recipe.model_validate(values)
        except ValidationError as error:
            raise UsageError(_explain(error)) from error

    @staticmethod
    def read(path: str | os.PathLike[str]) -> "Recipe":
        """A recipe from a TOML file.

        Raises:
            UsageError: the file is missing, not TOML, or not a recipe.
        """
        try:
            return Recipe.parse(tomllib.loads(Path(path).read_text()))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read recipe '{path}': {error}; give a TOML file of a recipe") from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the recipe as TOML, by rename."""
        files.write(path, tomli_w.dumps(self.model_dump(mode="json")))

    @property
    def epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stage)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), _keys(Recipe), n=2)
        return f"unknown key of a recipe: received '{key}'" + (f"; did you mean {' or '.join(near)}?" if near else "")
    if first["type"] == "missing":
        return f"key '{key}' of the recipe is missing: {first['msg'].lower()}"
    return f"key '{key}' of the recipe: received {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys(settings: type[Settings]) -> list[str]:
    tables: list[type[Settings]] = [DataSettings, ModelSettings, Stage] if settings is Recipe else []
    return [*settings.model_fields, *(key for table in tables for key in _keys(table))]
