"""`kbnn demo --model`, in this process."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from kbnn import examples
from kbnn.cli import main


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["demo", *map(str, arguments)])


def test_lists_every_example():
    done = demo("--model", "list")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in examples.names())


def test_runs_a_shipped_file_on_shipped_images(tmp_path: Path):
    done = demo("--model", "tiny-bireal-digits", "--output", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["right"] >= 0.9 * found["shown"] == 36
    page = (tmp_path / "report.html").read_text()
    assert "What it sees" in page
    assert "3x3x64x64" in page


def test_an_unknown_example_is_status_2(tmp_path: Path):
    done = demo("--model", "tiny-bireal", "--output", tmp_path)
    assert done.exit_code == 2
    assert "did you mean tiny-bireal-digits" in done.output
