"""Every lever changes the recipe as it says, and is recorded once."""

from pathlib import Path

import levers
import pytest
import record

from kbnn import models
from kbnn.training import Recipe, Run, catalog, networks


def of(name: str) -> Recipe:
    return levers.recipe(name, 5, 0, Path("teacher"))


@pytest.mark.parametrize("name", levers.LEVERS)
def test_every_lever_is_a_recipe_of_five_epochs(name: str):
    assert of(name).epochs == 5
    assert of(name).data.validation == 0.1


@pytest.mark.parametrize("name", [name for name in levers.LEVERS if any("model" in key for key in levers.LEVERS[name])])
def test_every_network_of_a_lever_builds(name: str):
    recipe = of(name)
    method = networks.method(recipe.model, recipe.stage[0])
    model = models.build(recipe.model.name, method, input_shape=(8, 8, 3), blocks=1, **recipe.model.options)
    assert model.output_shape == (None, 10)


def test_a_lever_changes_its_settings_alone():
    own = catalog.find(levers.RECIPE).stage[0]
    base = of(levers.NONE)
    assert (base.stage[0].optimizer, base.stage[0].learning_rate) == (own.optimizer, own.learning_rate)
    assert base.differences(of("batch 64")) == ["data.batch: 128 -> 64"]
    assert base.differences(of("one cycle: warm-up for 2 of 5 epochs, then linear")) == [
        "stage.1.schedule: cosine -> linear",
        "stage.1.warmup: 0 -> 2",
    ]
    assert [(stage.epochs, stage.kernels) for stage in of("first half with real kernels").stage] == [
        (2, "real"),
        (3, "binary"),
    ]
    taught = of("loss from a teacher alone").stage[0].distillation
    assert taught is not None
    assert (taught.teacher, taught.share) == ("teacher", 1.0)


def test_a_lever_is_trained_and_recorded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    trained: list[str] = []

    def train(recipe: Recipe, output: Path, *, resume: bool) -> Run:
        trained.append(output.name)
        return FinishedRun(output, recipe)

    class FinishedRun(Run):
        def history(self) -> list[dict[str, float]]:
            return [{"accuracy": 0.5, "val_accuracy": 0.25}, {"accuracy": 0.625, "val_accuracy": 0.5}]

    monkeypatch.setattr(levers, "train", train)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["levers.py", "batch 64", "loss from a teacher alone"])
    assert levers.main() == 0
    assert levers.main() == 0
    assert trained == ["batch-64-5-seed0"]
    (row,) = record.read("levers")
    assert (row["lever"], row["validation_top1"], row["training_top1"]) == ("batch 64", "0.5000", "0.6250")
