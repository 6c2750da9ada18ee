"""Accuracy tables: shortened recipes, rows trained with every seed, interruptions, and rows whose data is missing."""

import signal
from pathlib import Path

import pytest

from kbnn import reproduction
from kbnn.errors import KbnnError, UsageError
from kbnn.reproduction import Row, ours
from kbnn.training import Grid, InterruptedRunError, Recipe, Result, Run, catalog


def recipe(*epochs: int) -> Recipe:
    stages = [{"epochs": count, "learning_rate": 0.01 / (place + 1)} for place, count in enumerate(epochs)]
    return Recipe.parse(
        {"name": "r", "data": {"name": "digits"}, "model": {"name": "tiny", "method": "bireal"}, "stage": stages}
    )


@pytest.mark.parametrize(
    ("planned", "epochs", "shared"),
    [((400,), 20, [20]), ((400, 400), 20, [10, 10]), ((300, 99, 1), 20, [15, 4, 1]), ((20, 1), 2, [1, 1])],
)
def test_fewer_epochs_are_divided_among_stages_proportionally(planned: tuple[int, ...], epochs: int, shared: list[int]):
    short = recipe(*planned).shortened(epochs)
    assert [stage.epochs for stage in short.stage] == shared
    assert [stage.learning_rate for stage in short.stage] == [stage.learning_rate for stage in recipe(*planned).stage]


def test_a_recipe_in_full_is_the_recipe():
    assert recipe(7, 3).shortened(None) == recipe(7, 3).shortened(10) == recipe(7, 3)


def test_fewer_epochs_than_stages_are_refused():
    with pytest.raises(UsageError, match="has 2 stages: received 1 epochs"):
        recipe(5, 5).shortened(1)


def outcome(run: Run) -> Result:
    """As if a run with seed s had ended at 90 + s % top-1 and 99 % top-5."""
    top1 = 0.9 + run.recipe.seed / 100
    return Result("", run.recipe.name, "digits", 2, 100, top1, 0.1, None, None, None, top5=0.99)


def untrained(one: Recipe, folder: Path) -> Run:
    """An untrained run, or an error if the recipe's name asks for one."""
    if one.name == "absent":
        raise KbnnError("data set 'imagenet2012' is not prepared")
    return Run(folder, one)


def test_rows_are_trained_with_every_seed_and_tabulated(tmp_path: Path):
    absent = recipe(400).model_copy(update={"name": "absent"})
    rows = [Row("A+b", recipe(400).changed({"paper_top5": 98.5}), 91.0), Row("c d", absent, 60.0)]
    table = reproduction.reproduce("t", "a paper", rows, tmp_path, untrained, outcome, epochs=2, seeds=2)
    first, second = table.outcomes
    assert (first.mean, first.deviation, first.seeds) == (pytest.approx(90.5), pytest.approx(-0.5), (0, 1))
    assert first.top1 == pytest.approx((90, 91))
    assert (second.mean, second.deviation, second.note) == (None, None, "data set 'imagenet2012' is not prepared")
    assert table.failed == (second,)
    (printed,) = [line.split() for line in str(table).splitlines() if line.strip().startswith("A+b")]
    assert printed == ["A+b", "91.00", "90.50", "98.50", "99.00", "0.71", "-0.50", "2", "of", "400", "0", "1"]
    assert "0 of 400" in str(table)
    assert str(table).endswith("\nc d: data set 'imagenet2012' is not prepared")


def test_seeds_count_up_from_the_recipes_own(tmp_path: Path):
    rows = [Row("a", recipe(1).changed({"seed": 7}))]
    (found,) = reproduction.reproduce("t", "", rows, tmp_path, untrained, outcome, seeds=3).outcomes
    assert found.seeds == (7, 8, 9)


def test_a_sweep_over_seeds_trains_each_of_them(tmp_path: Path):
    trained = []

    def train(one: Recipe, folder: Path) -> Run:
        trained.append((one.seed, folder.name))
        return Run(folder, one)

    grid = Grid.of(recipe(1), {"seed": [0, 1, 5]})
    rows = [Row(label, grid.variant(label), settings=grid.values(label)) for label in grid.labels]
    table = reproduction.reproduce("t", "", rows, tmp_path, train, outcome)
    assert trained == [(0, "0-seed0"), (1, "1-seed1"), (5, "5-seed5")]
    assert [found.top1 for found in table.outcomes] == [pytest.approx((90 + seed,)) for seed in (0, 1, 5)]


@pytest.mark.parametrize(
    ("key", "value", "epochs", "seeds"),
    [("seed", 5, None, 2), ("stage.1.epochs", 3, 4, 1), ("data.batch", 64, None, 1)],
)
def test_a_value_that_is_varied_is_never_overwritten(tmp_path: Path, key: str, value: int, epochs: int, seeds: int):
    def train(one: Recipe, folder: Path) -> Run:
        return Run(folder, one.changed({"data.batch": 32}))

    rows = [Row("a", recipe(2).changed({key: value}), settings={key: value})]
    (found,) = reproduction.reproduce("t", "", rows, tmp_path, train, outcome, epochs=epochs, seeds=seeds).outcomes
    assert f"does not have the value of an axis ({key}: " in found.note


def test_variants_with_equal_runs_give_a_warning(tmp_path: Path):
    def train(one: Recipe, folder: Path) -> Run:
        run = Run(folder, one)
        run.write_history([{"stage": 1, "epoch": 1, "loss": 0.5 if one.data.batch < 64 else 0.25}])
        return run

    rows = [Row(str(batch), recipe(1).changed({"data.batch": batch})) for batch in (16, 32, 64)]
    table = reproduction.reproduce("t", "", rows, tmp_path, train, outcome)
    assert [found.twin for found in table.outcomes] == ["", "16 with seed 0", ""]
    assert "warning: 32 equals 16 with seed 0 in every figure of every epoch" in str(table)


def test_all_recipes_are_checked_before_the_first_is_trained(tmp_path: Path):
    def train(one: Recipe, folder: Path) -> Run:
        raise AssertionError("trained")

    for changes, message in (
        ({"model.method": "bireel"}, "row 'b': unknown method: received 'bireel'; did you mean bireal"),
        ({"data.name": "digit"}, "row 'b': unknown data set: received 'digit'; did you mean digits"),
        ({"stage.1.distillation": {"teacher": "none"}}, "row 'b': no teacher at 'none'"),
        ({"data.resize": 8, "data.size": 9}, "row 'b': cannot crop size=9 from resize=8 pixels"),
    ):
        rows = [Row("a", recipe(1)), Row("b", recipe(1).changed(changes))]
        with pytest.raises(UsageError, match=message):
            reproduction.reproduce("t", "", rows, tmp_path, train, outcome)


def test_an_interruption_ends_the_table(tmp_path: Path):
    def train(one: Recipe, folder: Path) -> Run:
        raise InterruptedRunError("stopped", signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match="stopped; resume it"):
        reproduction.reproduce("t", "", [Row("a", recipe(1))], tmp_path, train, outcome)


@pytest.mark.parametrize("label", ours.METHODS)
def test_our_own_rows_differ_in_method_network_form_and_rate_only(label: str):
    rows = {row.label: row.recipe for row in reproduction.get("cifar10-resnet20").rows()}
    chosen = ours.METHODS[label].learning_rate
    assert rows[label].data == rows["float"].data
    assert rows[label].model.method == label
    assert sum(stage.epochs for stage in rows[label].stage) == ours.EPOCHS
    assert {stage.learning_rate for stage in rows[label].stage} == {chosen}
    plain = rows["float"].stage[0].model_copy(update={"learning_rate": chosen})
    assert rows[label].stage[-1].model_copy(update={"epochs": ours.EPOCHS}) == plain


def test_the_network_forms_are_those_of_the_papers_recipes():
    rows = {row.label: row.recipe for row in reproduction.get("cifar10-resnet20").rows()}
    for label, name in (
        ("xnor", "mlbma-resnet20-xnor-cifar10"),
        ("xnor+ml+bma", "mlbma-resnet20-xnor+ml+bma-cifar10"),
        ("siman", "siman-resnet20-cifar10"),
        ("adabin", "adabin-resnet20-cifar10"),
    ):
        paper = catalog.find(name).model
        # SiMaN's kernels have the gradient of the authors' code instead of the paper's.
        kernels = None if label == "siman" else paper.kernels
        assert rows[label].model == paper.model_copy(update={"initializer": None, "kernels": kernels})


def test_bireal_is_pretrained_with_a_clip_as_in_its_paper():
    clip, binary = ours.comparison("bireal").stage
    assert (clip.method, clip.epochs, binary.method, binary.epochs) == ("float", 5, None, 15)
