"""`kbnn recipes`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from kbnn import tables
from kbnn.cli.command import Command, json_option, show
from kbnn.errors import UsageError

if TYPE_CHECKING:
    from kbnn.training import Grid, Recipe


@dataclass(frozen=True)
class Row:
    """A recipe in the list, or a grid of them."""

    name: str
    network: str
    method: str
    data: str
    epochs: int
    paper: float | None
    paper_top5: float | None
    source: str | None


@dataclass(frozen=True)
class Variants:
    """A grid in the list; `paper` is its lowest and its highest top-1."""

    name: str
    variants: int
    paper: tuple[float, float]
    source: str | None


@dataclass(frozen=True)
class Listing:
    """Recipes and grids."""

    recipes: tuple[Row, ...]
    grids: tuple[Variants, ...]

    def __str__(self) -> str:
        parts = []
        if self.recipes:
            cells = [
                (r.name, r.network, r.method, r.data, r.epochs, _percent(r.paper), _percent(r.paper_top5), r.source)
                for r in self.recipes
            ]
            columns = ("recipe", "network", "method", "data", ">epochs", ">top-1 (%)", ">top-5", "row")
            parts.append(tables.render(columns, cells))
        if self.grids:
            grids = [(g.name, g.variants, " to ".join(map(_percent, g.paper)), g.source) for g in self.grids]
            parts.append(tables.render(("grid", ">recipes", ">paper (%)", "table"), grids))
            parts.append(f"a grid's recipes: kbnn recipes '{self.grids[0].name}/*'")
        return "\n\n".join(parts)


@dataclass(frozen=True)
class Details:
    """One recipe in full, and the comment at the top of its file."""

    recipe: dict[str, Any]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        import tomli_w

        return "\n".join([*(f"# {note}" for note in self.notes), tomli_w.dumps(self.recipe).rstrip()])


@click.command(cls=Command)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the recipes of the papers' tables with the figures printed there, or show one in full.

    NAME is a recipe, or a pattern.

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
        show(Details(catalog.find(name).tables(), tuple(catalog.notes(name))), as_json)


def _listing(names: list[str]) -> Listing:
    from kbnn.training import catalog

    grids = set(catalog.grids())
    recipes = tuple(_row(catalog.find(name)) for name in names if name not in grids)
    return Listing(recipes, tuple(_variants(catalog.grid(name)) for name in names if name in grids))


def _row(recipe: "Recipe") -> Row:
    data = recipe.data.name or recipe.data.folder
    figures = (recipe.epochs, recipe.paper, recipe.paper_top5, recipe.source)
    return Row(recipe.name, recipe.model.name, recipe.model.method, data or "", *figures)


def _variants(grid: "Grid") -> Variants:
    figures = grid.paper.values()
    return Variants(grid.recipe.name, len(grid.labels), (min(figures), max(figures)), grid.recipe.source)


def _percent(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2f}"
