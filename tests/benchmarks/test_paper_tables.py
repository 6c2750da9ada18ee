"""Rows of a paper's table are recorded once, when all their seeds are trained."""

from pathlib import Path

import paper_tables
import pytest
import record


def outcome(row: str, *top1: float) -> paper_tables.Outcome:
    return {
        "row": row,
        "paper": 85.0,
        "top1": list(top1),
        "top5": [value + 20 for value in top1],
        "paper_top5": None,
        "epochs": 20,
        "planned": 400,
        "seeds": list(range(len(top1))),
    }


def test_complete_rows_are_recorded_once_with_mean_and_deviation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["paper_tables.py", "t"])
    paper_tables._record("t", [outcome("a", 70.0, 72.0), outcome("b", 60.0)], 2)
    paper_tables._record("t", [outcome("a", 70.0, 72.0), outcome("b", 60.0, 61.0)], 2)
    rows = record.read("paper_tables")
    assert [(row["row"], row["test_top1"]) for row in rows] == [("a", "70.00 72.00"), ("b", "60.00 61.00")]
    assert (rows[0]["test_top5"], rows[0]["paper_top5"]) == ("90.00 92.00", "")
    assert (rows[0]["mean"], rows[0]["deviation"], rows[0]["seeds"]) == ("71.00", "1.41", "0 1")
