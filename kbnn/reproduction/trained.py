"""The papers' accuracy tables, with a recipe for each row.

Rows that a paper quotes from other papers are left out, because it does not say how they were trained.
"""

from kbnn.reproduction.accuracy import Row
from kbnn.training import catalog

# PresB-Net, table 1: the recipes whose first stage is the table's real-valued initialization, its top-1 and top-5.
_INITIALIZATIONS = {
    "aresb18-cifar100": (71.98, 90.29),
    "react18-cifar100": (70.76, 88.44),
    "presb10-cifar100": (67.4, 85.9),
    "presb18-cifar100": (72.3, 89.8),
    "presb34-cifar100": (73.3, 89.3),
}
_RESNET_18 = (75.61, 93.05)


def of_recipes(table: str) -> list[Row]:
    """The rows of a table, from the recipes that name it."""
    return [Row(recipe.name, recipe, recipe.paper) for recipe in catalog.of_table(table)]


def bireal_table_2() -> list[Row]:
    """Bi-Real Net's own columns."""
    return _named("bireal18-imagenet", "bireal34-imagenet")


def bnnplus_table_3() -> list[Row]:
    """The best rows of table 2."""
    return _named("bnnplus-table2-alexnet/r1/ss5", "bnnplus-table2-resnet18/r2/ss5")


def presb_table_1() -> list[Row]:
    """Networks after their real-valued stage alone, and ResNet-18 trained the same way."""
    rows = []
    for name, (top1, top5) in _INITIALIZATIONS.items():
        recipe = catalog.find(name)
        figures = {"name": f"{name}/real", "paper": top1, "paper_top5": top5}
        alone = recipe.model_copy(update={**figures, "stage": recipe.stage[:1]})
        rows.append(Row(alone.name, alone, top1))
    presb = {row.label: row.recipe for row in rows}["presb18-cifar100/real"]
    # An ordinary ResNet has ReLUs.
    top1, top5 = _RESNET_18
    settings = {
        "name": "resnet18-cifar100/real",
        "paper": top1,
        "paper_top5": top5,
        "model": {"name": "resnet18", "method": "float+relu", "options": {}},
        "stage.1.method": "float+relu",
    }
    resnet = presb.changed(settings)
    return [Row(resnet.name, resnet, top1), *rows]


def _named(*names: str) -> list[Row]:
    return [Row(name, recipe, recipe.paper) for name, recipe in ((name, catalog.find(name)) for name in names)]
