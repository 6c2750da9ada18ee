"""Compares a table of a paper with our own figures, cell by cell."""

from collections.abc import Sequence
from dataclasses import dataclass

from kbnn import tables


@dataclass(frozen=True)
class Cell:
    """One figure in a paper, and ours.

    `tolerance` is the largest relative deviation that counts as equal, since papers round or count slightly
    differently. If it is None, the figure is quoted but not compared; `note` says why.
    """

    row: str
    column: str
    paper: float
    ours: float | None
    tolerance: float | None = 0.008
    note: str = ""

    @property
    def deviation(self) -> float | None:
        """(ours - paper) / paper."""
        return None if self.ours is None else (self.ours - self.paper) / abs(self.paper)

    @property
    def agrees(self) -> bool:
        """Whether our figure is within the tolerance; True for quoted figures."""
        return self.tolerance is None or (self.deviation is not None and abs(self.deviation) <= self.tolerance)


@dataclass(frozen=True)
class TableComparison(tables.Shown):
    """A table of a paper compared with ours."""

    name: str
    source: str
    cells: Sequence[Cell]

    @property
    def agrees(self) -> bool:
        """Whether every compared cell is within its tolerance."""
        return all(cell.agrees for cell in self.cells)

    def __str__(self) -> str:
        columns = ("row", "column", ">paper", ">ours", ">deviation", "")
        judged = [cell for cell in self.cells if cell.tolerance is not None]
        summary = f"{sum(cell.agrees for cell in judged)} of {len(judged)} cells within their tolerance"
        quoted = len(self.cells) - len(judged)
        if quoted:
            summary += f", {quoted} quoted only"
        rows = [_row(cell) for cell in self.cells]
        return f"{tables.render(columns, rows, title=f'{self.name}: {self.source}')}\n{summary}"


def _row(cell: Cell) -> tuple[str, ...]:
    ours = "" if cell.ours is None else f"{cell.ours:.4g}"
    deviation = "" if cell.deviation is None or cell.tolerance is None else f"{cell.deviation:+.2%}"
    verdict = cell.note if cell.agrees else f"off by more than {cell.tolerance:.1%}; {cell.note}".rstrip("; ")
    return cell.row, cell.column, f"{cell.paper:.4g}", ours, deviation, verdict
