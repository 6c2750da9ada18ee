"""`kbnn demo --model`, in this process."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kbnn import examples
from kbnn.cli import main


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["demo", *map(str, arguments)])


def test_lists_every_pretrained_file():
    done = demo("--model", "list")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in examples.names())


@pytest.mark.slow
def test_runs_a_pretrained_file_on_sample_images(tmp_path: Path):
    done = demo("--model", "tiny-bireal-digits", "--output", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["right"] >= 0.9 * found["shown"] == 36
    page = (tmp_path / "report.html").read_text()
    assert "Images and predictions" in page
    assert "3x3x64x64" in page


@pytest.mark.slow
def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo-tiny-bireal-digits").mkdir(parents=True)
    (tmp_path / "runs" / "demo-tiny-bireal-digits" / "report.html").write_text("earlier")
    done = demo("--model", "tiny-bireal-digits", "--json")
    assert json.loads(done.stdout)["report"] == "runs/demo-tiny-bireal-digits-2/report.html"
    assert (tmp_path / "runs" / "demo-tiny-bireal-digits" / "report.html").read_text() == "earlier"
    refused = demo("--model", "tiny-bireal-digits", "--output", tmp_path)
    assert (refused.exit_code, "is not an empty folder" in refused.stderr) == (2, True)


def test_an_unknown_name_is_status_2(tmp_path: Path):
    done = demo("--model", "tiny-bireal", "--output", tmp_path)
    assert done.exit_code == 2
    assert "did you mean tiny-bireal-digits" in done.output
