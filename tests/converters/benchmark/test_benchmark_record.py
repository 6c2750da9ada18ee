"""The CSV file that collects measurements."""

import csv
from pathlib import Path

import pytest
from benchmark_tools import replay

from kbnn.converters.benchmark import compare, record
from kbnn.errors import UsageError


def test_rows_are_appended_with_hashes(tmp_path: Path, model: Path):
    comparison = compare([model, model], tool=replay(tmp_path, "out-arm.default", "out-arm.op_profiling"))
    path = tmp_path / "results" / "phones.csv"
    record.append(path, comparison)
    record.append(path, comparison)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["file_sha256"] for row in rows} == {comparison.reports[0].file.sha256}
    assert {row["tool_sha256"] for row in rows} == {comparison.reports[0].tool.sha256}
    assert {row["median_of_means_us"] for row in rows} == {"45865.1"}
    assert {row["file"] for row in rows} == {str(model)}


def test_figures_that_were_not_measured_are_empty(tmp_path: Path, model: Path):
    record.append(tmp_path / "o.csv", compare([model], tool=replay(tmp_path, "out-arm.default")))
    with (tmp_path / "o.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["binary_share_of_time"] == ""


def test_another_kind_of_file_is_left_alone(tmp_path: Path, model: Path):
    path = tmp_path / "notes.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="has other columns"):
        record.append(path, compare([model], tool=replay(tmp_path, "out-arm.default")))
    assert path.read_text() == "a,b\n1,2\n"
