"""`kbnn recipes`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from kbnn import pretrained, tables
from kbnn.cli.command import Command, json_option, show
from kbnn.errors import UsageError

if TYPE_CHECKING:
    from kbnn.training import Grid, Recipe


@dataclass(frozen=True)
class RecipeRow:
    """A recipe in the list.

    `paper` and `paper_top5` are printed in its paper; `ours` is the test accuracy of the weights that ship, for recipes
    that we trained in full. All in percent.
    """

    name: str
    network: str
    method: str
    data: str
    epochs: int
    paper: float | None
    paper_top5: float | None
    ours: float | None
    source: str | None


@dataclass(frozen=True)
class GridRow:
    """A grid in the list; `paper` has its lowest and highest top-1 accuracy."""

    name: str
    variants: int
    paper: tuple[float, float]
    source: str | None


@dataclass(frozen=True)
class RecipeListing:
    """Recipes and grids."""

    recipes: tuple[RecipeRow, ...]
    grids: tuple[GridRow, ...]

    def __str__(self) -> str:
        parts = []
        if self.recipes:
            cells = [
                (
                    r.name,
                    r.network,
                    r.method,
                    r.data,
                    r.epochs,
                    *map(_percent, (r.paper, r.paper_top5, r.ours)),
                    r.source,
                )
                for r in self.recipes
            ]
            columns = ("recipe", "network", "method", "data", ">epochs", ">paper (%)", ">top-5", ">ours (%)", "row")
            parts.append(tables.render(columns, cells))
        if self.grids:
            grids = [(g.name, g.variants, " to ".join(map(_percent, g.paper)), g.source) for g in self.grids]
            parts.append(tables.render(("grid", ">recipes", ">paper (%)", "table"), grids))
            parts.append(f"a grid's recipes: kbnn recipes '{self.grids[0].name}/*'")
        return "\n\n".join(parts)


@dataclass(frozen=True)
class RecipeDetails:
    """A complete recipe, and the comment at the top of its file."""

    recipe: dict[str, object]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        import tomli_w

        return "\n".join([*(f"# {note}" for note in self.notes), tomli_w.dumps(self.recipe).rstrip()])


@click.command(cls=Command)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the recipes of the papers' tables with the figures printed there, or show one in full.

    NAME is the name of a recipe, or a pattern.

    \b
    Example:
      kbnn recipes
      kbnn recipes "siman*"
      kbnn recipes "bnnplus-table1-alexnet/*"
      kbnn recipes presb18-cifar100 > mine.toml
    """
    from kbnn.training import catalog

    if name is None:
        show(_listing([found for found in catalog.names() if "/" not in found]), as_json)
    elif any(mark in name for mark in "*?["):
        found = catalog.names(name)
        if not found:
            raise UsageError(f"no recipe's name matches: received '{name}', see 'kbnn recipes'")
        show(_listing(found), as_json)
    elif name in catalog.grids():
        show(_listing(catalog.names(f"{name}/*")), as_json)
    else:
        show(RecipeDetails(catalog.find(name).tables(), tuple(catalog.notes(name))), as_json)


def _listing(names: list[str]) -> RecipeListing:
    from kbnn.training import catalog

    grids = set(catalog.grids())
    recipes = tuple(_row(catalog.find(name)) for name in names if name not in grids)
    return RecipeListing(recipes, tuple(_grid_row(catalog.grid(name)) for name in names if name in grids))


def _row(recipe: "Recipe") -> RecipeRow:
    data = recipe.data.name or recipe.data.folder
    figures = (recipe.epochs, recipe.paper, recipe.paper_top5, _ours(recipe), recipe.source)
    return RecipeRow(recipe.name, recipe.model.name, recipe.model.method, data or "", *figures)


def _ours(recipe: "Recipe") -> float | None:
    ours = {(each.recipe, each.planned_epochs): 100 * each.test_top1 for each in pretrained.all_networks()}
    return ours.get((recipe.name, recipe.epochs))


def _grid_row(grid: "Grid") -> GridRow:
    figures = grid.paper.values()
    return GridRow(grid.recipe.name, len(grid.labels), (min(figures), max(figures)), grid.recipe.source)


def _percent(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2f}"
