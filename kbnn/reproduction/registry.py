"""Every table by name: what it is, where it is printed, and what makes ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kbnn.analysis.pictures import Picture
from kbnn.errors import unknown
from kbnn.reproduction import analytic, drawings, ours
from kbnn.reproduction.accuracy import Row
from kbnn.reproduction.comparison import Cell, Comparison


@dataclass(frozen=True)
class Analytic:
    """A table that is computed."""

    name: str
    source: str
    compute: Callable[[analytic.Build], list[Cell]]

    def compare(self, build: analytic.Build) -> Comparison:
        """Computes every cell; `build` makes networks by name."""
        return Comparison(self.name, self.source, tuple(self.compute(build)))


@dataclass(frozen=True)
class Accuracy:
    """A table that is trained."""

    name: str
    source: str
    rows: Callable[[], Sequence[Row]]


@dataclass(frozen=True)
class Drawing:
    """A figure that follows from formulas; those of trained networks are drawn by `kbnn analyze`."""

    name: str
    source: str
    draw: Callable[[], Picture]


Table = Analytic | Accuracy | Drawing

_TABLES: tuple[Table, ...] = (
    Analytic("bireal-table3", "Bi-Real Net, table 3: memory and FLOPs", analytic.bireal_table_3),
    Analytic("bireal-capability", "Bi-Real Net, sections 3.1, 3.2 and figure 5", analytic.bireal_capability),
    Analytic("mlbma-table6", "ML+BMA, table 6: storage and FLOPs", analytic.mlbma_table_6),
    Analytic("mlbma-entropy", "ML+BMA, section 4.2: the largest entropy of ResNet-20", analytic.mlbma_entropy_bound),
    Analytic("siman-corollaries", "SiMaN, corollaries 2 and 3: shares of +1 and angles", analytic.siman_corollaries),
    Analytic("presb-cost", "PresB-Net, section on FLOPs and storage", analytic.presb_cost),
    Drawing("bnnplus-figure4", "BNN+, figure 4: estimators and their derivatives", drawings.estimators),
    Drawing("bnnplus-figure5", "BNN+, figure 5: regularizers", drawings.regularizers),
    Accuracy("cifar10-resnet20", "ours: eleven methods on ResNet-20, CIFAR-10, one common schedule", ours.budget),
    Accuracy("cifar10-larger", "ours: Bi-Real-18 and PresB-Net-10, CIFAR-10, the same schedule", ours.larger),
)


def tables() -> tuple[Table, ...]:
    """All tables."""
    return _TABLES


def get(name: str) -> Table:
    """The table of a name.

    Raises:
        UsageError: an unknown name; near names are offered.
    """
    for table in _TABLES:
        if table.name == name:
            return table
    raise unknown("table", name, (table.name for table in _TABLES))
