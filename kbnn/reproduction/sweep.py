"""A trained grid of recipes, as a table with a column for each value of its last axis."""

from dataclasses import dataclass

from kbnn import tables
from kbnn.reproduction.accuracy import AccuracyTable, Outcome


@dataclass(frozen=True)
class Sweep(AccuracyTable):
    """The results of a grid's variants; a variant's name joins the labels of its values on `axes` with `/`."""

    axes: tuple[str, ...]

    def __str__(self) -> str:
        listed = super().__str__()
        return listed if len(self.axes) == 1 else f"{listed}\n\n{self._matrix()}"

    def _matrix(self) -> str:
        """Our figures, with the paper's in brackets."""
        cells = {outcome.row: _cell(outcome) for outcome in self.outcomes}
        rows = list(dict.fromkeys(label.rpartition("/")[0] for label in cells))
        columns = list(dict.fromkeys(label.rpartition("/")[2] for label in cells))
        return tables.render(
            ("/".join(self.axes[:-1]), *(f">{column}" for column in columns)),
            [(row, *(cells.get(f"{row}/{column}", "") for column in columns)) for row in rows],
            title=f"top-1 (%) by {self.axes[-1]}, the paper's in brackets",
        )


def _cell(outcome: Outcome) -> str:
    ours = "-" if outcome.mean is None else f"{outcome.mean:.2f}"
    return ours if outcome.paper is None else f"{ours} ({outcome.paper:.2f})"
