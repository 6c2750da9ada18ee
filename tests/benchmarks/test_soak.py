"""The soak test: how failures are classified, and that mutants depend only on the seed."""

import random
from pathlib import Path

import pytest
import soak

from kbnn.converters.tflite import audit, flatbuffer
from kbnn.errors import KbnnError

ROOT = Path(__file__).parents[2]
TINY = next((ROOT / "kbnn" / "examples").glob("tiny*.tflite"))


def test_an_expected_error_is_a_refusal_and_another_one_a_traceback():
    outcome = soak.Outcome("test")
    for error in (None, KbnnError("one line"), KbnnError("two\nlines"), ValueError("unexpected")):
        with soak.case(outcome, "a case"):
            if error:
                raise error
    assert (outcome.cases, outcome.refused, outcome.tracebacks) == (4, 2, 2)
    assert outcome.first_failure == "tracebacks: a case: an error of several lines"


def test_a_case_that_does_not_terminate_is_a_hang(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(soak, "LONGEST", 0.1)
    outcome = soak.Outcome("test")
    with soak.case(outcome, "endless"):
        while True:
            pass
    assert (outcome.cases, outcome.hangs, outcome.tracebacks) == (1, 1, 0)


@pytest.mark.slow
def test_mutants_are_audited_or_refused():
    data, outcome = TINY.read_bytes(), soak.Outcome("mutants")
    first, again = (soak.mutants(data, random.Random(1)) for _ in range(2))  # noqa: S311
    for k in range(60):
        changed = next(first)
        assert changed == next(again)
        with soak.case(outcome, k):
            str(audit.audit(flatbuffer.parse(changed)))
    assert outcome.tracebacks == outcome.hangs == 0, outcome.first_failure
    assert 5 < outcome.refused < 55


def test_the_table_has_the_newest_row_of_each_attack():
    row = dict.fromkeys(("refused", "losses", "hangs", "tracebacks", "code_runs", "wrong_accepts"), "0")
    rows = [
        {**row, "attack": "mutants", "cases": "10", "slowest_seconds": "1.0"},
        {**row, "attack": "mutants", "cases": "20000", "refused": "9000", "slowest_seconds": "0.25"},
    ]
    table = soak._table(rows).splitlines()
    assert len(table) == 3
    assert table[2].endswith("| 20,000 | 9,000 | 0 | 0 | 0 | 0 | 0 | 0.2 s |")


def test_the_committed_page_is_written_from_the_committed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page, committed = tmp_path / "security.md", soak.PAGE.read_text()
    page.write_text(committed)
    monkeypatch.setattr(soak, "PAGE", page)
    soak._write_page()
    assert page.read_text() == committed
