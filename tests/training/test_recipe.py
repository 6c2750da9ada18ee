"""Recipes: types, unknown keys, changes, differences."""

from pathlib import Path

import pytest
import tomli_w

from kbnn.errors import KbnnError, UsageError
from kbnn.training import Recipe, Run, train
from kbnn.training.recipe import parse_value


def tables(**changes: object) -> dict[str, object]:
    return {
        "name": "small",
        "data": {"name": "digits"},
        "model": {"name": "tiny", "method": "bireal"},
        "stage": [{"epochs": 2}, {"epochs": 3}],
        **changes,
    }


def test_common_defaults():
    recipe = Recipe.of("tiny", "bireal", "digits", epochs=4, batch=32, seed=7, width=0.5)
    assert recipe.name == "tiny-bireal-digits"
    assert recipe.epochs == 4
    assert (recipe.data.batch, recipe.data.pad, recipe.data.flip) == (32, 1, False)
    assert recipe.seed == 7
    assert recipe.model.options == {"width": 0.5}


@pytest.mark.parametrize(
    ("dataset", "size", "expected"),
    [
        ("cifar10", None, {"pad": 4, "flip": True, "resize": None, "size": None}),
        ("digits", 16, {"pad": 0, "flip": False, "resize": 18, "size": 16}),
        ("svhn_cropped", None, {"pad": 4, "flip": False, "resize": None, "size": None}),
        ("cifar10", 224, {"pad": 0, "flip": True, "resize": 256, "size": 224}),
        ("imagenet2012", None, {"pad": 0, "flip": True, "resize": 256, "size": 224}),
        ("imagenette", 64, {"pad": 0, "flip": True, "resize": 73, "size": 64}),
    ],
)
def test_augmentation_suits_the_data(dataset: str, size: int | None, expected: dict[str, object]):
    data = Recipe.of("resnet20", "bireal", dataset, size=size).data
    assert {key: getattr(data, key) for key in expected} == expected


def test_image_folders_are_stored_as_absolute_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.of("resnet20", "bireal", folder="photos", size=32)
    assert recipe.data.folder == str(tmp_path / "photos")
    assert recipe.name == "resnet20-bireal-photos"


def test_a_recipe_on_other_images(tmp_path: Path):
    recipe = Recipe.parse(tables(data={"name": "cifar10", "batch": 64, "validation": 0.02, "pad": 4, "flip": True}))
    digits = recipe.on("digits").data
    assert (digits.name, digits.batch, digits.validation, digits.pad, digits.flip) == ("digits", 64, 0.02, 1, False)
    photos = recipe.on(folder=tmp_path, size=64).data
    assert (photos.name, photos.folder, photos.pad, photos.resize, photos.size) == (None, str(tmp_path), 0, 73, 64)
    assert (photos.batch, photos.batch_for(72), photos.validation) == (None, 8, 0.02)
    larger = recipe.on(size=224)
    assert larger.data.batch == 64
    assert (larger.data.name, larger.data.size, larger.data.pad) == ("cifar10", 224, 0)
    assert larger.stage == recipe.stage


def test_recipe_file_round_trip(tmp_path: Path):
    recipe = Recipe.parse(tables(paper=87.4, source="table 1"))
    recipe.write(tmp_path / "recipe.toml")
    assert Recipe.read(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 1}, "unknown key of a recipe: received 'sead'; did you mean seed?"),
        ({"stage": [{"epoch": 1}]}, "unknown key of a recipe: received 'stage.1.epoch'; did you mean epochs?"),
        ({"data": {"name": "digits", "flop": True}}, "received 'data.flop'; did you mean flip?"),
        ({"zzz": 1}, "received 'zzz'; choose one of name, source"),
        ({"stage": [{"epochs": 0}]}, "key 'stage.1.epochs' of the recipe: received 0; input should be greater than"),
        ({"stage": [{"epochs": 2}, {"epochs": "3"}]}, "key 'stage.2.epochs' of the recipe: received '3'; input should"),
        ({"stage": [{}]}, "key 'stage.1.epochs' of the recipe is missing"),
        ({"stage": []}, "key 'stage' of the recipe"),
        ({"seed": -1}, "key 'seed' of the recipe: received -1; input should be greater than or equal to 0"),
        ({"seed": 2**31}, "key 'seed' of the recipe: received 2147483648; input should be less than 2147483648"),
        ({"name": "../up"}, "name '../up' cannot be the name of a run's folder"),
        ({"name": "/up"}, "name '/up' cannot be the name of a run's folder"),
        ({"name": "a/../b"}, "name 'a/../b' cannot be the name of a run's folder"),
        ({"name": ".."}, "name '..' cannot be the name of a run's folder"),
        ({"name": ""}, "name '' cannot be the name of a run's folder"),
        ({"name": "a\\b"}, "cannot be the name of a run's folder"),
        ({"data": {"name": "digits", "folder": "x"}}, "give either name (a known data set) or folder"),
        ({"stage": [{"epochs": 1, "learning_rate": float("nan")}]}, "key 'stage.1.learning_rate' of the recipe"),
    ],
)
def test_a_wrong_key_is_named(changes: dict[str, object], message: str):
    with pytest.raises(UsageError) as caught:
        Recipe.parse(tables(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": "adam", "momentum": 0.5},
            "key 'stage.2' of the recipe: momentum has an effect only with optimizer",
        ),
        ({"factor": 0.2}, "factor has an effect only with schedule 'steps': received factor=0.2"),
        (
            {"schedule": "steps", "boundaries": [2, 4]},
            "boundaries has an effect only with a stage of at least as many ep",
        ),
        ({"warmup": 4}, "warmup has an effect only with a stage of at least as many epochs: received warmup=4"),
        ({"decay": "all"}, "decay has an effect only with weight_decay: received decay='all'"),
        (
            {"label_smoothing": 0.1, "distillation": {"teacher": "run", "share": 1.0}},
            "label_smoothing has an effect only with distillation.share below 1",
        ),
        ({"penalty_warmup": 4}, "penalty_warmup has an effect only with a stage of at least as many epochs"),
        ({"penalty_warmup": 1, "kernels": "real"}, "penalty_warmup has an effect only with binary kernels"),
        ({"penalty_warmup": 1, "train": "batch_norm"}, "penalty_warmup has an effect only with binary kernels"),
    ],
)
def test_settings_without_an_effect_are_refused(changes: dict[str, object], message: str, tmp_path: Path):
    recipe = Recipe.parse(tables())
    values = {**recipe.tables(), "stage": [{"epochs": 1}, {"epochs": 3, **changes}]}
    with pytest.raises(UsageError) as caught:
        Recipe.parse(values)
    assert message in str(caught.value)
    # Runs of earlier versions, which accepted these settings, can still be opened.
    (tmp_path / "config.toml").write_text(tomli_w.dumps(values))
    assert Run.open(tmp_path).recipe.stage[1].epochs == 3


def test_settings_of_folders_are_refused_for_other_data():
    with pytest.raises(UsageError, match=r"unreadable has an effect only with data.folder: received unreadable='skip'"):
        Recipe.of("tiny", "bireal", "digits").changed({"data.unreadable": "skip"})
    photos = Recipe.of("tiny", "bireal", folder="photos").changed({"data.unreadable": "skip", "data.max_bytes": 10})
    assert photos.on("digits").data.unreadable == "refuse"
    assert photos.on(size=32).data.max_bytes == 10


def test_the_first_stage_has_none_to_start_from():
    recipe = Recipe.parse(tables(stage=[{"epochs": 1}, {"epochs": 1, "start": "best"}]))
    assert [stage.start for stage in recipe.stage] == ["last", "best"]
    with pytest.raises(UsageError, match="the first stage has none to start from: received start='best', remove it"):
        recipe.changed({"stage.1.start": "best"})


def test_recipes_of_version_0_1_can_be_read():
    """Version 0.1 wrote the defaults of every schedule into every run."""
    stage = {"epochs": 2, "weight_decay": 1e-4, "decay_binarized": True, "ede": [1e-3, 10.0], "percentile": 10.0}
    found = Recipe.parse(tables(stage=[stage])).stage[0]
    assert (found.decay, found.quantizers) == ("all", {"percentile": 10.0})
    assert (
        Recipe.parse(tables(stage=[{"epochs": 2, "ede": [1e-3, 10.0], "percentile": 15.0}])).stage[0].quantizers == {}
    )


def test_a_stage_in_fewer_epochs():
    stage = {"epochs": 100, "schedule": "steps", "boundaries": [30, 60], "warmup": 10, "penalty_warmup": 20}
    found = Recipe.parse(tables(stage=[stage])).stage[0].shortened(10)
    assert (found.epochs, found.boundaries, found.warmup, found.penalty_warmup) == (10, (3, 6), 1, 2)


def test_changed_settings():
    recipe = Recipe.parse(tables())
    changed = recipe.changed({"stage.2.epochs": 30, "data.batch": 64, "model.options.width": 0.5})
    assert (changed.stage[0].epochs, changed.stage[1].epochs) == (2, 30)
    assert changed.data.batch == 64
    assert changed.model.options == {"width": 0.5}
    assert recipe.differences(changed) == [
        "stage.2.epochs: 3 -> 30",
        "data.batch: None -> 64",
        "model.options.width: None -> 0.5",
    ]
    assert recipe.differences(recipe) == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("stage.3.epochs", "cannot set 'stage.3.epochs': received stage '3', but the stages are 1 to 2"),
        ("stage.one.epochs", "received stage 'one'"),
        ("stage.1.epochz", "unknown key of a recipe: received 'stage.1.epochz'; did you mean epochs?"),
        ("seed.x", "cannot set 'seed.x': it is not a key of a recipe"),
        ("stage.1", "cannot set 'stage.1'"),
        ("modle.name", "unknown key of a recipe: received 'modle'; did you mean model?"),
    ],
)
def test_invalid_settings(key: str, message: str):
    with pytest.raises(UsageError) as caught:
        Recipe.parse(tables()).changed({key: 1})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("1e-3", 1e-3), ("true", True), ("[0.1, 0.9]", [0.1, 0.9]), ("cosine", "cosine"), ('"30"', "30")],
)
def test_values_of_the_command_line(text: str, value: object):
    assert parse_value(text) == value


def test_files_that_are_not_recipes(tmp_path: Path):
    with pytest.raises(UsageError, match=r"cannot read recipe .*nothing.toml': No such file"):
        Recipe.read(tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(UsageError, match=r"cannot read recipe .*broken.toml': Invalid value"):
        Recipe.read(tmp_path / "broken.toml")


def test_a_run_may_find_its_images_and_teachers_at_other_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stages = [{"epochs": 2, "distillation": {"teacher": "runs/teacher"}}, {"epochs": 3}]
    recipe = Recipe.parse(tables(data={"folder": "photos", "size": 32}, stage=stages))
    monkeypatch.chdir(tmp_path)
    located = recipe.with_absolute_paths()
    assert located.data.folder == str(tmp_path / "photos")
    assert located.stage[0].distillation.teacher == str(tmp_path / "runs" / "teacher")
    assert located.stage[1] == recipe.stage[1]
    there = located.changed({"data.folder": "/there/pictures", "stage.1.distillation.teacher": "/there/teacher"})
    assert located.at_the_places_of(there) == there
    other = located.changed({"stage.1.distillation.teacher": "/there/another", "data.flip": True})
    assert located.at_the_places_of(other) == located


def test_weights_that_ship_are_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "mine").mkdir()
    named = Recipe.parse(tables(model={"name": "resnet20", "method": "bnn", "weights": "cifar10"}))
    assert named.with_absolute_paths() == named
    mine = named.changed({"model.weights": "mine"}).with_absolute_paths()
    assert mine.model.weights == str(tmp_path / "mine")


@pytest.mark.parametrize(
    "content", ["a = " + 100_000 * "[", "a = " + 5_000 * "9", f'a = "{1_000_001 * "x"}"', "a = \\ud800"]
)
def test_a_damaged_file_is_one_error(content: str, tmp_path: Path):
    (tmp_path / "recipe.toml").write_text(content)
    with pytest.raises(UsageError, match="cannot read recipe"):
        Recipe.read(tmp_path / "recipe.toml")


def recorded(folder: Path, dataset: str) -> Run:
    """A run that records something about its data."""
    Recipe.parse(tables()).write(folder / "config.toml")
    (folder / "dataset.json").write_text(dataset)
    return Run.open(folder)


@pytest.mark.parametrize(
    "dataset",
    [
        100_000 * "[",
        "[]",
        '{"name": "photos"}',
        '{"name": "photos", "classes": [1, 2], "counts": [], "digest": ""}',
        '{"input": {"mean": ["a"], "std": [1], "resize": 8, "square": false, "size": 8}}',
        '{"input": {"mean": [1], "std": [0], "resize": 8, "square": false, "size": 8}}',
        '{"input": {"mean": [1], "std": [1], "resize": "x", "square": false, "size": 8}}',
        '{"input": {"mean": [1], "std": [1], "resize": 4, "square": false, "size": 8}}',
    ],
)
def test_a_damaged_record_of_a_runs_data_is_one_error(dataset: str, tmp_path: Path):
    run = recorded(tmp_path, dataset)
    with pytest.raises(KbnnError, match=r"dataset.json' is damaged"):
        (run.fingerprint(), run.preparation())


def test_a_run_that_records_its_data(tmp_path: Path):
    taken = '{"mean": [1.5], "std": [2], "resize": null, "square": false, "size": 8}'
    run = recorded(tmp_path, f'{{"name": "a", "classes": ["x", "y"], "counts": [], "digest": "d", "input": {taken}}}')
    assert run.fingerprint().classes == ("x", "y")
    normalization, transform = run.preparation()
    assert (normalization.mean, normalization.std, transform.size) == ((1.5,), (2.0,), 8)
    assert recorded(tmp_path, "{}").fingerprint() is None


@pytest.mark.parametrize("name", ["checkpoints", "logs", "analysis"])
def test_kbnn_does_not_write_through_a_link_in_a_run(name: str, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    run = recorded(tmp_path / "run", "{}")
    (run.folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"is a link to .*, outside of the run"):
        train(run.recipe, run.folder, resume=True, quiet=True)
    # A link to the whole run is the user's own.
    (run.folder / name).unlink()
    (tmp_path / "linked").symlink_to(run.folder)
    Run.open(tmp_path / "linked").check_folders()
