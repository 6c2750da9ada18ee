"""`kbnn models`, in this process."""

import json

import pytest
from click.testing import CliRunner, Result

from kbnn import accounting, models
from kbnn.cli import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments])


def test_lists_every_network():
    listed = run()
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in models.names())


def test_lists_what_matches_a_pattern():
    rows = json.loads(run("bireal*", "--json").stdout)["models"]
    assert [row["name"] for row in rows] == ["bireal18", "bireal34"]


def test_tells_about_one_network():
    told = run("resnet20").stdout
    assert "shortcut_type='B'" in told
    assert "Three stages" in told


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
        (["--cost"], "give one NAME"),
        (["tiny", "--classes", "3"], "give --cost too"),
        (["--cost", "tiny", "--input", "8x8"], "--input is HEIGHTxWIDTHxCHANNELS, such as 32x32x3: received '8x8'"),
        (["--cost", "tiny", "--option", "width"], "--option is KEY=VALUE, such as width=0.5: received 'width'"),
        (["--cost", "tiny", "--option", "width=wide"], "tiny: width: input should be a valid number"),
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
