"""A grid of recipes: one recipe, and axes along which some of its settings change."""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from kbnn.errors import UsageError, unknown
from kbnn.training.recipe import Recipe, Settings, parse, read_toml


class Axis(Settings):
    """`[[axis]]`: its values by label, each as settings by their dotted keys."""

    name: str
    values: dict[str, dict[str, Any]] = Field(min_length=1)


class Grid(Settings):
    """A recipe in as many variants as its axes have combinations of values, and the paper's top-1 of each in percent.

    A variant is called by the labels of its values: "r1/tanh". What a later axis sets is set last.
    """

    recipe: Recipe
    axis: tuple[Axis, ...] = Field(min_length=1, strict=False)
    paper: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _figures_are_of_variants(self) -> "Grid":
        strangers = sorted(self.paper.keys() - set(self.labels))
        if strangers:
            raise ValueError(f"paper has a figure of '{strangers[0]}', which no combination of the axes is called")
        return self

    @staticmethod
    def of(recipe: Recipe, over: Mapping[str, Sequence[Any]]) -> "Grid":
        """A recipe over several values of settings, by their dotted keys.

        Example:
            >>> Grid.of(recipe, {"model.penalty": [1e-5, 1e-4], "seed": [0, 1, 2]})
        """
        axes = [
            {"name": key.rpartition(".")[2], "values": {str(value): {key: value} for value in values}}
            for key, values in over.items()
        ]
        return parse(Grid, {"recipe": {**recipe.tables(), "paper": None}, "axis": axes})

    @staticmethod
    def read(path: str | os.PathLike[str]) -> "Grid":
        """A grid from a TOML file.

        Raises:
            UsageError: the file is missing, not TOML, or not a grid.
        """
        return parse(Grid, read_toml(path))

    @property
    def labels(self) -> list[str]:
        """What the variants are called; the last axis runs fastest."""
        return list(self._settings())

    def changed(self, settings: Mapping[str, Any]) -> "Grid":
        """The grid of the recipe with other settings, see `Recipe.changed`."""
        return self.model_copy(update={"recipe": self.recipe.changed(settings)})

    def variant(self, label: str) -> Recipe:
        """One variant's recipe.

        Raises:
            UsageError: an unknown label (near ones are offered), or values that the recipe cannot take.
        """
        settings = self._settings()
        if label not in settings:
            raise unknown(f"variant of {self.recipe.name}", label, settings)
        figures = {"name": f"{self.recipe.name}/{label}", "paper": self.paper.get(label)}
        return self.recipe.changed({**settings[label], **figures})

    def variants(self) -> dict[str, Recipe]:
        """All variants by label."""
        return {label: self.variant(label) for label in self.labels}

    def _settings(self) -> dict[str, dict[str, Any]]:
        """What each variant sets."""
        combinations = itertools.product(*(axis.values.items() for axis in self.axis))
        return {
            "/".join(label for label, _ in combination): {
                key: value for _, settings in combination for key, value in settings.items()
            }
            for combination in combinations
        }


def is_grid(tables: Mapping[str, Any]) -> bool:
    """Whether the tables of a TOML file are a grid's."""
    return "axis" in tables


def not_one(path: object) -> UsageError:
    """The error for a grid where one recipe is wanted."""
    return UsageError(f"'{path}' is a grid of recipes: train all with kbnn sweep, or one as GRID/VARIANT")
