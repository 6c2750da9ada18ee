"""`kbnn recipes`, `kbnn sweep`, and `kbnn train RECIPE`, in this process."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner, Result

from kbnn import pretrained, training
from kbnn.cli import main
from kbnn.cli.trained_rows import show_filled
from kbnn.errors import KbnnError
from kbnn.reproduction import Outcome, Sweep
from kbnn.training import Recipe, Run, catalog

WITHOUT_TENSORFLOW = "import sys, kbnn.cli; sys.modules['tensorflow'] = None; kbnn.cli.main(sys.argv[1:])"
SMALL = {"model.options.width": 0.125, "stage.1.epochs": 1, "data.batch": 512}


def kbnn(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_lists_recipes_and_grids_with_the_papers_figures():
    listed = kbnn("recipes")
    assert listed.exit_code == 0, listed.output
    assert all(name in listed.stdout for name in catalog.names() if "/" not in name)
    content = json.loads(kbnn("recipes", "--json").stdout)
    papers = {row["name"]: row["paper"] for row in content["recipes"]}
    assert papers["siman-resnet20-cifar10"] == 87.4
    assert next(row for row in content["grids"] if row["name"] == "bnnplus-table1-alexnet")["paper"] == [80.3, 87.39]


@pytest.mark.parametrize("name", ["mlbma-table2", "mlbma-table2/*"])
def test_lists_the_variants_of_a_grid(name: str):
    rows = json.loads(kbnn("recipes", name, "--json").stdout)["recipes"]
    assert {row["name"]: row["paper"] for row in rows}["mlbma-table2/1e-4"] == 84.3
    assert len(rows) == 5


def test_shows_a_recipe_as_its_file(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(kbnn("recipes", "presb18-cifar100").stdout)
    assert Recipe.read(tmp_path / "mine.toml") == catalog.find("presb18-cifar100")


@pytest.mark.parametrize("arguments", [("recipes",), ("recipes", "presb18-cifar100"), ("reproduce", "--list")])
def test_lists_need_no_tensorflow(arguments: tuple[str, ...]):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "presb" in done.stdout


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two methods, each with a batch that fits the data set and one that is larger than it."""
    recipe = Recipe.of("tiny", "bireal", "digits").changed({**SMALL, "name": "mine", "source": "a paper"})
    axes = [
        {"name": "method", "values": {name: {"model.method": name} for name in ("bireal", "bnn")}},
        {"name": "batch", "values": {"fits": {}, "large": {"data.batch": 5000}}},
    ]
    path = tmp_path / "grid.toml"
    path.write_text(tomli_w.dumps({"recipe": recipe.tables(), "axis": axes, "paper": {"bnn/fits": 50.0}}))
    return path


@pytest.mark.slow
def test_a_sweep_continues_and_prints_a_table(grid: Path, tmp_path: Path):
    first = kbnn("sweep", grid, "-o", tmp_path / "runs", "--only", "bnn/fits")
    assert first.exit_code == 0, first.output
    model = tmp_path / "runs" / "bnn-fits-seed0" / "model.keras"
    written = model.stat().st_mtime_ns
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["bnn-fits-seed0"]

    whole = kbnn("sweep", grid, "-o", tmp_path / "runs", "--json")
    assert whole.exit_code == 1
    assert whole.stderr.splitlines()[-1].startswith(
        "error: 2 of 4 variants failed; 'bireal/large': batch size does not"
    )
    assert model.stat().st_mtime_ns == written
    outcomes = {outcome["row"]: outcome for outcome in json.loads(whole.stdout)["outcomes"]}
    assert [row for row, outcome in outcomes.items() if outcome["top1"]] == ["bireal/fits", "bnn/fits"]
    assert outcomes["bnn/fits"]["paper"] == 50.0

    table = kbnn("sweep", grid, "-o", tmp_path / "runs").stdout.splitlines()
    (row,) = [line.split() for line in table if line.strip().startswith("bnn ")]
    assert row == ["bnn", f"{outcomes['bnn/fits']['top1'][0]:.2f}", "(50.00)", "-"]


@pytest.mark.slow
def test_a_sweep_without_its_terminal_trains_every_variant(grid: Path, tmp_path: Path):
    """As after `disown` and the end of the session: each write on stdout and stderr fails with EIO."""
    terminal, its_end = pty.openpty()
    os.close(terminal)
    command = [Path(sys.executable).with_name("kbnn"), "sweep", grid, "-o", tmp_path / "runs", "--only", "*/fits"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=its_end, stderr=its_end, timeout=600)
    finally:
        os.close(its_end)
    # The table cannot be printed.
    assert done.returncode == 1
    for name in ("bireal-fits-seed0", "bnn-fits-seed0"):
        assert (tmp_path / "runs" / name / "model.keras").exists()
        assert training.result(Run.open(tmp_path / "runs" / name)).epochs == 1


def test_a_variant_without_the_results_of_a_seed_has_failed():
    outcome = Outcome("bnn", None, (50.0,), epochs=1, planned=1, seeds=(0,), note="the loss became NaN")
    with pytest.raises(KbnnError, match="1 of 1 variants failed; 'bnn': the loss became NaN"):
        show_filled(Sweep("mine", "a paper", (outcome,), ("method",)), as_json=False, failed="variants failed")


@pytest.mark.slow
def test_options_change_a_recipe(grid: Path, tmp_path: Path):
    """With other data, fewer epochs and changed settings; the summary lists the deviations from the paper."""
    settings = [
        f"--set={key}={value}" for key, value in {**SMALL, "data.validation": 0.1}.items() if "epochs" not in key
    ]
    arguments = ("--model", "tiny", "--dataset", "digits", "--epochs", 1, "--seed", 3, *settings)
    done = kbnn("train", "mlbma-resnet20-xnor-cifar10", *arguments, "--set=model.options.shortcuts=res")
    assert done.exit_code == 2
    assert "unknown option of tiny: received 'shortcuts'" in done.output
    recipe = tmp_path / "recipe.toml"
    catalog.find("mlbma-resnet20-xnor-cifar10").changed({"model.options": {}}).write(recipe)
    done = kbnn("train", recipe, *arguments, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    trained = Run.open(tmp_path / "run").recipe
    assert (trained.seed, trained.epochs, trained.data.name, trained.data.pad) == (3, 1, "digits", 1)
    assert trained.stage[0].weight_decay == 1e-4
    assert "paper: 80.33 %" in done.stdout
    assert "with other settings than the paper's: seed: 0 -> 3; data.name: cifar10 -> digits" in done.stdout


def test_recipes_that_we_trained_show_the_accuracy_of_the_weights_that_ship():
    rows = {row["name"]: row for row in json.loads(kbnn("recipes", "--json").stdout)["recipes"]}
    shipped = {each.recipe: 100 * each.test_top1 for each in pretrained.all_networks()}
    assert {name: row["ours"] for name, row in rows.items() if row["ours"] is not None} == shipped
    assert shipped["best-compact32-cifar10"] == 79.66
    assert re.search(r"best-compact32-cifar10.* 79\.66 ", kbnn("recipes", "best-*").stdout)
