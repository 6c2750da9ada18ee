"""Cells: when they agree with the paper, and how a table shows those that do not."""

import pytest

from kbnn.reproduction import Cell, TableComparison


@pytest.mark.parametrize(
    ("ours", "tolerance", "agrees"), [(101.0, 0.02, True), (97.0, 0.02, False), (None, 0.02, False), (5.0, None, True)]
)
def test_a_cell_agrees_within_its_tolerance(ours: float | None, tolerance: float | None, agrees: bool):
    assert Cell("row", "column", 100.0, ours, tolerance).agrees is agrees


def test_deviation_is_relative_to_the_paper():
    assert Cell("row", "column", -50.0, -49.0).deviation == pytest.approx(0.02)


def test_a_table_marks_deviations_and_counts_quoted_cells():
    cells = (Cell("a", "x", 1.0, 1.0), Cell("b", "x", 1.0, 2.0), Cell("c", "x", 1.0, 9.0, None, "quoted"))
    table = TableComparison("t", "a paper", cells)
    assert not table.agrees
    text = str(table)
    assert "1 of 2 cells within their tolerance, 1 quoted only" in text
    assert "+100.00%   off by more than 0.8%" in text
