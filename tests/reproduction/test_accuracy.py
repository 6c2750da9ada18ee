"""Accuracy tables: shortened recipes, rows trained with every seed, interruptions, and rows whose data is missing."""

import signal
from pathlib import Path

import pytest

from kbnn import reproduction
from kbnn.errors import KbnnError, UsageError
from kbnn.reproduction import Row
from kbnn.training import InterruptedRunError, Recipe, Run


def recipe(*epochs: int) -> Recipe:
    stages = [{"epochs": count, "learning_rate": 0.01 / (place + 1)} for place, count in enumerate(epochs)]
    return Recipe.parse(
        {"name": "r", "data": {"name": "digits"}, "model": {"name": "tiny", "method": "bireal"}, "stage": stages}
    )


@pytest.mark.parametrize(
    ("planned", "epochs", "shared"),
    [((400,), 20, [20]), ((400, 400), 20, [10, 10]), ((300, 99, 1), 20, [15, 4, 1]), ((20, 1), 2, [1, 1])],
)
def test_stages_share_fewer_epochs_as_they_shared_more(planned: tuple[int, ...], epochs: int, shared: list[int]):
    short = reproduction.shortened(recipe(*planned), epochs)
    assert [stage.epochs for stage in short.stage] == shared
    assert [stage.learning_rate for stage in short.stage] == [stage.learning_rate for stage in recipe(*planned).stage]


def test_a_recipe_in_full_is_the_recipe():
    assert reproduction.shortened(recipe(7, 3), None) == reproduction.shortened(recipe(7, 3), 10) == recipe(7, 3)


def test_fewer_epochs_than_stages_are_refused():
    with pytest.raises(UsageError, match="has 2 stages: received 1 epochs"):
        reproduction.shortened(recipe(5, 5), 1)


def test_rows_are_trained_with_every_seed_and_tabulated(tmp_path: Path):
    def train(one: Recipe, folder: Path) -> Run:
        if one.name == "absent":
            raise KbnnError("data set 'imagenet2012' is not prepared")
        return Run(folder, one)

    rows = [Row("A+b", recipe(400), 91.0), Row("c d", recipe(400).model_copy(update={"name": "absent"}), 60.0)]
    table = reproduction.reproduce(
        "t", "a paper", rows, tmp_path, train, lambda run: 90.0 + run.recipe.seed, epochs=2, seeds=(0, 1)
    )
    first, second = table.outcomes
    assert (first.top1, first.mean, first.deviation, first.seeds) == ((90, 91), 90.5, -0.5, (0, 1))
    assert (second.mean, second.deviation, second.note) == (None, None, "data set 'imagenet2012' is not prepared")
    assert table.failed == (second,)
    assert "2 of 400" in str(table)
    assert "0 of 400" in str(table)
    assert "0.71" in str(table)
    assert str(table).endswith("\nc d: data set 'imagenet2012' is not prepared")


def test_an_interruption_ends_the_table(tmp_path: Path):
    def train(one: Recipe, folder: Path) -> Run:
        raise InterruptedRunError("stopped", signal.SIGTERM, "--resume")

    with pytest.raises(InterruptedRunError, match="stopped, go on with the same command"):
        reproduction.reproduce("t", "", [Row("a", recipe(1))], tmp_path, train, lambda run: 0.0)


@pytest.mark.parametrize("label", [row.label for row in reproduction.get("cifar10-resnet20").rows()])
def test_our_own_rows_have_one_schedule(label: str):
    rows = {row.label: row.recipe for row in reproduction.get("cifar10-resnet20").rows()}
    assert rows[label].stage == rows["float"].stage
    assert rows[label].data == rows["float"].data
    assert rows[label].model.method == label
