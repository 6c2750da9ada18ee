"""The recipes that ship with kbnn: a TOML file for each row of a paper's table, or for a grid of rows.

>>> catalog.names("siman*")
>>> catalog.find("presb18-cifar100").paper
>>> catalog.of_table("mlbma-table3")
"""

import fnmatch
import functools
import importlib.metadata
import importlib.util
import itertools
import os
from pathlib import Path

from kbnn import files
from kbnn.errors import KbnnError, UsageError, unknown
from kbnn.training.grid import Grid, is_grid, not_one
from kbnn.training.recipe import Recipe, parse, read_toml

# Packages that register networks here may hold recipes for them.
GROUP = "kbnn.architectures"
_FOLDER = "recipes"
_ENDING = ".toml"


def names(pattern: str = "*") -> list[str]:
    """The sorted names of recipes and grids that match a shell pattern; variants of grids are named GRID/VARIANT."""
    every = [*_shipped(), *(f"{name}/{label}" for name in grids() for label in grid(name).labels)]
    return sorted(fnmatch.filter(every, pattern))


def grids() -> list[str]:
    """The names of the grids."""
    return [name for name, content in _shipped().items() if isinstance(content, Grid)]


def grid(name: str | os.PathLike[str]) -> Grid:
    """A grid by its name, or from a TOML file.

    Raises:
        UsageError: an unknown name (close ones are suggested), a recipe, or a file that cannot be read.
    """
    content = _read(Path(name)) if _is_file(name) else _shipped().get(str(name))
    if isinstance(content, Recipe):
        raise UsageError(f"'{name}' is a recipe, not a grid: train it, or name the settings to vary")
    if content is None:
        raise unknown("grid", name, grids())
    return content


def find(name: str | os.PathLike[str]) -> Recipe:
    """A recipe by its name (GRID/VARIANT for a variant of a grid), or from a TOML file.

    Raises:
        UsageError: an unknown name (close ones are suggested), a grid, or a file that cannot be read.
    """
    content = _read(Path(name)) if _is_file(name) else _shipped().get(str(name))
    if isinstance(content, Recipe):
        return content
    if content is not None:
        raise not_one(name)
    of_grid, _, label = str(name).partition("/")
    if label and of_grid in grids():
        return grid(of_grid).variant(label)
    raise unknown("recipe", name, names())


def notes(name: str) -> list[str]:
    """The comment at the top of a shipped recipe's file: which settings are ours where the paper gives none."""
    paths = [folder / _FOLDER / f"{name.partition('/')[0]}{_ENDING}" for folder in _packages()]
    lines = next((path.read_text().splitlines() for path in paths if path.is_file()), [])
    return [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]


def deviations(recipe: Recipe) -> list[str]:
    """The settings that differ from the shipped recipe of the same name; an empty list if there is none."""
    return find(recipe.name).differences(recipe) if recipe.name in names() else []


def tables() -> list[str]:
    """The sorted names of the papers' tables that recipes reproduce."""
    rows = [content if isinstance(content, Recipe) else content.recipe for content in _shipped().values()]
    return sorted({table for row in rows for table in row.table})


def of_table(table: str) -> list[Recipe]:
    """The recipes of a table's rows, those of grids included.

    Raises:
        UsageError: an unknown name; close names are suggested.
    """
    if table not in tables():
        raise unknown("table", table, tables())
    rows: list[Recipe] = []
    for content in _shipped().values():
        if isinstance(content, Recipe):
            rows += [content] if table in content.table else []
        elif table in content.recipe.table:
            rows += content.variants().values()
    return rows


def _packages() -> list[Path]:
    """The folders of the packages that register networks, found without importing them."""
    specs = (importlib.util.find_spec(entry.module) for entry in importlib.metadata.entry_points(group=GROUP))
    return [Path(folder) for spec in specs if spec is not None for folder in spec.submodule_search_locations or ()]


@functools.cache
def _shipped() -> dict[str, Recipe | Grid]:
    """All shipped recipes and grids by name, in alphabetical order."""
    found = {}
    for path in sorted(file for folder in _packages() for file in (folder / _FOLDER).glob(f"*{_ENDING}")):
        content = _read(path)
        name = (content if isinstance(content, Recipe) else content.recipe).name
        if name != path.name.removesuffix(_ENDING):
            raise KbnnError(f"recipe '{path}' has the name '{name}': rename the file or the recipe")
        found[name] = content
    return found


def _read(path: Path) -> Recipe | Grid:
    values = read_toml(path)
    try:
        return parse(Grid, values) if is_grid(values) else parse(Recipe, values)
    except UsageError as error:
        raise UsageError(f"recipe '{path}': {error}") from error


def _is_file(name: str | os.PathLike[str]) -> bool:
    return isinstance(name, os.PathLike) or files.suffix(name) == _ENDING
