"""`kbnn models`, in this process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kbnn import accounting, models, pretrained
from kbnn.cli import cache, main
from kbnn.cli import models as listing


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_lists_every_network():
    listed = run()
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in models.names())


def test_lists_what_matches_a_pattern():
    rows = json.loads(run("bireal*", "--json").stdout)["models"]
    assert [row["name"] for row in rows] == ["bireal18", "bireal34"]


def test_describes_one_network():
    told = run("resnet20").stdout
    assert "shortcut_type='B'" in told
    assert "Three stages" in told


@pytest.mark.slow
def test_lists_what_fits_a_budget():
    asked = ["tiny", "--input", "16x16x3", "--classes", "5", "--json"]
    expected = accounting.count(models.build("tiny", input_shape=(16, 16, 3), classes=5))
    kilobytes, macs = expected.storage_bits / 8000, expected.binary_macs + expected.real_macs
    (fit,) = json.loads(run(*asked, "--max-kb", str(kilobytes + 0.01), "--max-macs", str(macs)).stdout)["models"]
    assert (fit["name"], fit["binary_macs"], fit["real_macs"]) == ("tiny", expected.binary_macs, expected.real_macs)
    assert fit["kilobytes"] == pytest.approx(kilobytes)
    too_large = json.loads(run(*asked, "--max-kb", str(kilobytes - 0.01)).stdout)
    assert (too_large["models"], too_large["refused"]) == ([], {"tiny": f"{kilobytes:.1f} kB"})
    too_slow = json.loads(run(*asked, "--max-macs", f"{(macs - 1) / 1e6:.6f}M").stdout)
    assert list(too_slow["refused"]) == ["tiny"]


def test_a_list_needs_no_tensorflow(tmp_path: Path):
    code = (
        "import sys\nfrom kbnn.cli import main\n"
        "try: main(['models', '--json'])\nexcept SystemExit: print('tensorflow' in sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    first = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert [row["name"] for row in json.loads(first.stdout)["models"]] == models.names()
    assert first.stderr == "False\n"
    assert not list(tmp_path.iterdir())


def test_the_list_that_ships_is_current():
    table = json.loads(Path(listing.__file__).with_name(cache.TABLES).read_text())["models"]
    current = json.loads(json.dumps(cache.described(["kbnn.models"], listing.all_rows())))
    assert table == current, "run: python benchmarks/listings.py"


def test_a_list_that_does_not_ship_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    computed = []

    def compute() -> list[int]:
        computed.append(True)
        return [1, 2]

    asked = ("other", ["kbnn.models"], ["kbnn.architectures"], compute)
    assert [cache.cached(*asked) for _ in range(2)] == [[1, 2], [1, 2]]
    assert len(computed) == 1
    (cached,) = (tmp_path / "kbnn").iterdir()
    cached.write_text("damaged")
    assert cache.cached(*asked) == [1, 2]
    assert len(computed) == 2


def test_lists_the_trained_weights():
    (row,) = json.loads(run("resnet20", "--pretrained", "--json").stdout)["weights"]
    entry = pretrained.get(row["name"])
    assert (row["sha256"], row["test_top1"], row["recipe"]) == (entry.sha256, entry.test_top1, entry.recipe)
    assert entry.name in run("--pretrained").stdout
    refused = run("tiny", "--pretrained")
    assert (refused.exit_code, "no trained weights match 'tiny'" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_counts_what_a_network_costs():
    cost = json.loads(run("--cost", "bireal18", "--input", "32x32x3", "--classes", "10", "--json").stdout)
    expected = accounting.count(models.build("bireal18", input_shape=(32, 32, 3), classes=10))
    assert (cost["storage_bits"], cost["flops"]) == (expected.storage_bits, expected.flops)
    assert len(cost["layers"]) == len(expected.layers)


def test_options_are_toml_values_or_plain_text():
    cost = run("--cost", "resnet20", "--option", "blocks=1", "--option", "shortcut_type=A", "--method", "xnor")
    assert cost.exit_code == 0, cost.output
    assert "stage1_block2" not in cost.stdout
    assert "shortcut1_conv" not in cost.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tniy"], "unknown model: received 'tniy'; did you mean tiny?"),
        (["nothing*"], "no model's name matches: received 'nothing*'"),
        (["--cost"], "give its NAME"),
        (["tiny", "--classes", "3"], "need --cost, --max-kb or --max-macs"),
        (
            ["--cost", "tiny", "--input", "8x8"],
            "--input must be HEIGHTxWIDTHxCHANNELS, such as 32x32x3: received '8x8'",
        ),
        (["--cost", "tiny", "--option", "width"], "--option must be KEY=VALUE, such as width=0.5: received 'width'"),
        (["--cost", "tiny", "--option", "width=wide"], "tiny: width: input should be a valid number"),
        (
            ["tiny", "--max-macs", "50 m"],
            "--max-macs must be a number, optionally with k, M or G, such as 50M: received '50 m'",
        ),
        (["--cost", "tiny", "--rule", "prseb"], "unknown accounting rule: received 'prseb'; did you mean presb?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_one_line_and_status_2(arguments: list[str], message: str):
    failed = run(*arguments)
    assert failed.exit_code == 2
    assert failed.stdout == ""
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1
