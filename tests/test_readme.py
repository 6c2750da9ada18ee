"""The README's examples run as printed."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_example_is_about_ten_lines():
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


# Two epochs are enough to run the example's lines; `kbnn demo` trains the same recipe for all of its epochs.
SHORTER = """
import functools
import kbnn
kbnn.training.Recipe.of = functools.partial(kbnn.training.Recipe.of, epochs=2)
"""


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    program = SHORTER + blocks("python")[0]
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "digits.tflite").is_file()
    assert "bitpacked" in done.stdout


def test_it_names_the_two_commands():
    text = README.read_text()
    makefile = README.with_name("Makefile").read_text()
    for command in ("demo", "test"):
        assert f"make {command}" in text
        assert f"\n{command}:" in makefile


def test_no_line_is_too_long():
    # Tables and links cannot be broken.
    lines = [line for line in README.read_text().splitlines() if not line.startswith(("|", "!["))]
    assert max(map(len, lines)) <= 120


def test_its_accuracies_are_measured():
    with (README.parent / "results" / "trained.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = re.findall(
        r"^\| `(\w+)`.*? \| `([\w+]+)` \| .*? \| (\d+) \| ([\d.]+) % \| ([\d.]+) kB", README.read_text(), re.M
    )
    assert len(table) >= 4
    measured = {
        (row["network"], row["method"], row["epochs"], f"{100 * float(row['tflite_top1']):.1f}"): row for row in rows
    }
    for network, method, epochs, top1, size in table:
        row = measured[network, method, epochs, top1]
        assert abs(int(row["tflite_bytes"]) / 1000 - float(size)) <= 0.5
