"""`kbnn reproduce`, in this process."""

import json

import pytest
from click.testing import CliRunner, Result

from kbnn import reproduction
from kbnn.cli import main


def reproduce(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["reproduce", *map(str, arguments)])


def test_lists_every_table():
    done = reproduce("--list")
    assert done.exit_code == 0
    assert all(table.name in done.stdout and table.source in done.stdout for table in reproduction.tables())


def test_a_computed_table_as_json():
    done = reproduce("siman-corollaries", "--json")
    assert done.exit_code == 0, done.output
    cells = json.loads(done.stdout)["cells"]
    assert cells[0]["paper"] == 0.37
    assert cells[0]["ours"] == pytest.approx(0.3679, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no table given"),
        (("siman-corollary",), "did you mean siman-corollaries"),
        (("cifar10-resnet20", "--only", "xnor,irnte"), "did you mean irnet"),
        (("cifar10-resnet20", "--rows", "irnte"), "did you mean irnet"),
        (("siman-corollaries", "--epochs", "2"), "table 'siman-corollaries' is not trained: received --epochs"),
        (("bnnplus-figure4", "--only", "a", "--seeds", "2"), "received --seeds, --only"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments: tuple[str, ...], message: str):
    done = reproduce(*arguments)
    assert done.exit_code == 2
    assert message in done.output
