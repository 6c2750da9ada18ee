"""Every table of the five papers is registered, and its rows are recipes with the papers' accuracies."""

import pytest

from kbnn import reproduction
from kbnn.reproduction import TrainedTable
from kbnn.training import catalog
from kbnn.training.networks import method

TABLES = {table.name: table for table in reproduction.tables()}
TRAINED = [name for name, table in TABLES.items() if isinstance(table, TrainedTable)]


@pytest.mark.parametrize(("paper", "count"), [("bireal", 3), ("bnnplus", 3), ("mlbma", 6), ("presb", 5), ("siman", 3)])
def test_every_table_of_a_paper_is_an_entry(paper: str, count: int):
    assert {f"{paper}-table{number}" for number in range(1, count + 1)} <= set(TABLES)


def test_every_table_that_a_recipe_names_is_an_entry():
    assert set(catalog.tables()) <= set(TABLES)


@pytest.mark.parametrize("name", TRAINED)
def test_rows_of_a_trained_table_have_names_of_their_own(name: str):
    labels = [row.label for row in TABLES[name].rows()]
    assert labels
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", [name for name in TRAINED if not name.startswith("cifar10-")])
def test_a_paper_s_table_has_the_paper_s_figures(name: str):
    assert any(row.paper for row in TABLES[name].rows())


def test_figures_are_those_that_are_printed():
    rows = {row.label: row.paper for name in ("siman-table1", "mlbma-table3") for row in TABLES[name].rows()}
    assert rows["siman-table1/siman"] == 60.1
    assert rows["mlbma-resnet20-xnor+ml+bma-cifar10"] == 85.0


def test_the_real_valued_initialization_is_the_first_stage_alone():
    rows = {row.label: row for row in TABLES["presb-table1"].rows()}
    recipe = rows["presb18-cifar100/real"].recipe
    assert rows["presb18-cifar100/real"].paper == 72.3
    assert (len(recipe.stage), recipe.stage[0].method) == (1, "float")
    resnet = rows["resnet18-cifar100/real"]
    assert (resnet.recipe.model.name, resnet.paper) == ("resnet18", 75.61)
    assert method(resnet.recipe.model, resnet.recipe.stage[0]).name == "float+relu"
