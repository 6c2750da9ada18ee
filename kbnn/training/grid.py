"""A grid of recipes: one recipe, and axes that vary some of its settings."""

import itertools
import os
from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from kbnn.errors import UsageError, unknown
from kbnn.training.recipe import Recipe, Tables, TomlTable, parse, read_toml


class Axis(TomlTable):
    """`[[axis]]`: labelled values, each a set of settings by dotted key."""

    name: str
    values: dict[str, dict[str, object]] = Field(min_length=1)


class Grid(TomlTable):
    """A recipe, and axes whose values are combined into variants.

    A variant is named after the labels of its values: "r1/tanh". `paper` and `paper_top5` are the accuracies printed in
    the paper for variants, in percent.
    """

    recipe: Recipe
    axis: tuple[Axis, ...] = Field(min_length=1, strict=False)
    paper: dict[str, float] = Field(default_factory=dict)
    paper_top5: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _figures_are_of_variants(self) -> "Grid":
        unknown_labels = sorted({*self.paper, *self.paper_top5} - set(self.labels))
        if unknown_labels:
            raise ValueError(f"paper has a figure for '{unknown_labels[0]}', which is not a combination of the axes")
        return self

    @staticmethod
    def of(recipe: Recipe, over: Mapping[str, Sequence[object]]) -> "Grid":
        """A recipe with several values for some settings, by dotted key.

        Example:
            >>> Grid.of(recipe, {"model.penalty": [1e-5, 1e-4], "seed": [0, 1, 2]})

        Raises:
            UsageError: a value is given twice.
        """
        for key, values in over.items():
            if len({str(value) for value in values}) < len(values):
                raise UsageError(f"cannot vary '{key}' over equal values: received {values}, give each once")
        axes = [
            {"name": key.rpartition(".")[2], "values": {str(value): {key: value} for value in values}}
            for key, values in over.items()
        ]
        return parse(Grid, {"recipe": {**recipe.tables(), "paper": None, "paper_top5": None}, "axis": axes})

    @staticmethod
    def read(path: str | os.PathLike[str]) -> "Grid":
        """A grid from a TOML file.

        Raises:
            UsageError: the file is missing, not TOML, or not a grid.
        """
        return parse(Grid, read_toml(path))

    @property
    def labels(self) -> list[str]:
        """The names of the variants; the last axis varies fastest."""
        return list(self._settings())

    def changed(self, settings: Mapping[str, object]) -> "Grid":
        """The same grid with changed settings of its recipe, see `Recipe.changed`."""
        return self.model_copy(update={"recipe": self.recipe.changed(settings)})

    def variant(self, label: str) -> Recipe:
        """One variant's recipe.

        Raises:
            UsageError: an unknown label (close ones are suggested), values that the recipe cannot take, or axes that
                overwrite each other's values.
        """
        settings = self.values(label)
        figures = {"paper": self.paper.get(label), "paper_top5": self.paper_top5.get(label)}
        recipe = self.recipe.changed({**settings, "name": f"{self.recipe.name}/{label}", **figures})
        check_settings(recipe, settings)
        return recipe

    def values(self, label: str) -> Tables:
        """The settings that the axes give a variant, by dotted key.

        Raises:
            UsageError: an unknown label; close ones are suggested.
        """
        found = self._settings()
        if label not in found:
            raise unknown(f"variant of {self.recipe.name}", label, found)
        return found[label]

    def variants(self) -> dict[str, Recipe]:
        """All variants by label."""
        return {label: self.variant(label) for label in self.labels}

    def _settings(self) -> dict[str, Tables]:
        """The settings of each variant.

        Raises:
            UsageError: two variants have the same label.
        """
        found: dict[str, Tables] = {}
        for chosen in itertools.product(*(axis.values.items() for axis in self.axis)):
            label = "/".join(label for label, _ in chosen)
            if label in found:
                raise UsageError(f"two variants have the label '{label}': give the values of the axes other labels")
            found[label] = _merged(chosen)
        return found


def _merged(chosen: Sequence[tuple[str, Tables]]) -> Tables:
    """The combined settings of one value per axis.

    Raises:
        UsageError: two axes set a key to different values.
    """
    merged: Tables = {}
    for label, settings in chosen:
        for key, value in settings.items():
            if merged.setdefault(key, value) != value:
                raise UsageError(
                    f"two axes set '{key}': received {merged[key]!r} and, for '{label}', {value!r}; vary it on one axis"
                )
    return merged


def check_settings(recipe: Recipe, settings: Mapping[str, object]) -> None:
    """Checks that a recipe still has the values that an axis gave it.

    Raises:
        UsageError: a value was overwritten.
    """
    expected = recipe.changed(settings)
    overwritten = recipe.differences(expected)
    if overwritten:
        raise UsageError(
            f"recipe '{recipe.name}' does not have the value of an axis ({'; '.join(overwritten)}): remove the setting "
            f"that overwrites it"
        )


def is_grid(tables: Mapping[str, object]) -> bool:
    """Whether the tables of a TOML file describe a grid."""
    return "axis" in tables


def not_one(path: object) -> UsageError:
    """The error for a grid where a single recipe is expected."""
    return UsageError(f"'{path}' is a grid of recipes: sweep it to train all of them, or name one as GRID/VARIANT")
