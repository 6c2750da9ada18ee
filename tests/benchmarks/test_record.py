"""Rows of results: which are kept, which are added, and their provenance."""

from pathlib import Path

import pytest
import record


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    return tmp_path


def test_rows_are_added_to_the_existing_ones():
    record.append("speed", [{"network": "a", "ratio": 1.5}], seed=3)
    record.append("speed", [{"network": "b", "memory": 7}])
    first, second = record.read("speed")
    assert (first["network"], first["ratio"], first["memory"], first["seed"]) == ("a", "1.5", "", "3")
    assert (second["network"], second["ratio"], second["memory"], second["seed"]) == ("b", "", "7", "")


def test_replacing_keeps_only_the_requested_rows():
    record.append("zoo", [{"network": "a"}, {"network": "b"}])
    record.replace("zoo", [{"network": "a"}], kept=record.read("zoo")[1:])
    assert [row["network"] for row in record.read("zoo")] == ["b", "a"]


def test_updating_replaces_the_rows_with_certain_values():
    record.append("zoo", [{"network": "a", "depth": 18}, {"network": "a", "depth": 34}, {"network": "b", "depth": 18}])
    record.update("zoo", [{"network": "a", "depth": 50}], network="a", depth=18)
    assert [(row["network"], row["depth"]) for row in record.read("zoo")] == [("a", "34"), ("b", "18"), ("a", "50")]


def test_provenance_records_command_source_time_and_machine():
    stamp = record.provenance(seed=0)
    assert list(stamp) == list(record.PROVENANCE)
    assert stamp["seed"] == 0
    assert str(stamp["command"]).startswith("python ")
    assert str(stamp["date"]).endswith("Z")
    assert "cores" in str(stamp["machine"])


def test_measured_is_what_has_a_row_with_the_same_values():
    record.append("levers", [{"lever": "rate", "epochs": 5}], seed=0)
    assert record.is_measured("levers", lever="rate", epochs=5, seed=0)
    assert not record.is_measured("levers", lever="rate", epochs=5, seed=1)
    assert not record.is_measured("levers", lever="rate", teacher="none")


def test_only_the_marked_part_of_a_page_is_replaced():
    page = "before\n<!-- table: begin -->\nstale\n<!-- table: end -->\nafter\n"
    assert record.filled(page, "table", "new") == page.replace("stale", "new")


@pytest.mark.parametrize(
    "page",
    [
        "no marks",
        "<!-- table: begin -->\nno end",
        "twice\n<!-- table: begin -->\n\n<!-- table: end -->\n<!-- table: begin -->\n\n<!-- table: end -->",
        "reversed\n<!-- table: end -->\n<!-- table: begin -->\n",
    ],
)
def test_a_page_without_one_pair_of_marks_is_refused(page: str):
    with pytest.raises(ValueError, match="one pair of marks 'table: begin' and 'table: end'"):
        record.filled(page, "table", "new")


def test_commands_name_no_folders_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    script = str(record.ROOT / "benchmarks" / "trained.py")
    paths = [str(tmp_path / "run"), f"tiny={tmp_path / 'run'}", str(record.ROOT / "runs" / "a")]
    monkeypatch.setattr("sys.argv", [script, "--seed=0", "a=b", *paths])
    assert record.provenance()["command"] == "python benchmarks/trained.py --seed=0 a=b runs/run tiny=runs/run runs/a"


def test_no_file_has_no_rows():
    assert record.read("nothing") == []
