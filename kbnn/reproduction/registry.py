"""Every table by name: where it is printed, and the function that computes, trains or draws ours."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kbnn.errors import unknown
from kbnn.reproduction import ours, trained
from kbnn.reproduction.accuracy import Row
from kbnn.reproduction.comparison import Cell, TableComparison

if TYPE_CHECKING:
    import tensorflow as tf

    from kbnn.analysis.pictures import Picture

# `kbnn.models.build`. It is passed in, because kbnn's packages do not depend on its networks.
Build = Callable[..., "tf.keras.Model"]


@dataclass(frozen=True)
class AnalyticTable:
    """A table that is computed."""

    name: str
    source: str
    compute: Callable[[Build], list[Cell]]

    def compare(self, build: Build) -> TableComparison:
        """Computes every cell; `build` builds a network by name."""
        return TableComparison(self.name, self.source, tuple(self.compute(build)))


@dataclass(frozen=True)
class TrainedTable:
    """A table of accuracies, whose rows are trained."""

    name: str
    source: str
    rows: Callable[[], Sequence[Row]]


@dataclass(frozen=True)
class Drawing:
    """A figure that follows from formulas; `kbnn analyze` draws figures of trained networks."""

    name: str
    source: str
    draw: "Callable[[], Picture]"


Table = AnalyticTable | TrainedTable | Drawing


def _computed(function: str) -> Callable[[Build], list[Cell]]:
    """A function of `analytic`. The module needs TensorFlow, so it is imported when the function is called."""
    return lambda build: getattr(importlib.import_module("kbnn.reproduction.analytic"), function)(build)


def _drawn(function: str) -> "Callable[[], Picture]":
    """A function of `drawings`, which is imported when the function is called."""
    return lambda: getattr(importlib.import_module("kbnn.reproduction.drawings"), function)()


# Accuracy tables whose rows are recipes that name them.
_OF_RECIPES = {
    "bireal-table1": "Bi-Real Net, table 1: shortcuts, estimators, weight updates and initializations on ImageNet",
    "bnnplus-table1": "BNN+, table 1: penalties and estimators, AlexNet and DoReFa's SVHN network on CIFAR-10",
    "bnnplus-table2": "BNN+, table 2: penalties and estimators, AlexNet and ResNet-18 on ImageNet",
    "mlbma-table1": "ML+BMA, table 1: standardized weights and the median loss, ResNet-20 on CIFAR-10",
    "mlbma-table2": "ML+BMA, table 2: the median loss's λ, ResNet-20 on CIFAR-10",
    "mlbma-table3": "ML+BMA, table 3: XNOR-Net with ML and BMA, ResNet-20 on CIFAR-10",
    "mlbma-table4": "ML+BMA, table 4: IR-Net with ML and BMA, Bi-Real-18 on CIFAR-10",
    "mlbma-table5": "ML+BMA, table 5: Bi-Real Net and IR-Net with ML and BMA on ImageNet",
    "presb-table2": "PresB-Net, table 2: depths on CIFAR-10 and CIFAR-100, PresB-Net-18 on ImageNet",
    "presb-table3": "PresB-Net, table 3: ReActNet and AresB-Net on CIFAR-100",
    "presb-table4": "PresB-Net, table 4: PresB-Net-18 on ImageNet",
    "presb-table5": "PresB-Net, table 5: activations and normalizations left out, CIFAR-100",
    "siman-table1": "SiMaN, table 1: L2 and the half-half code, ResNet-18 on ImageNet",
    "siman-table2": "SiMaN, table 2: ResNet-18, ResNet-20 and VGG-small on CIFAR-10, as in the paper and in its code",
    "siman-table3": "SiMaN, table 3: ResNet-18 and ResNet-34 on ImageNet",
}

_TABLES: tuple[Table, ...] = (
    AnalyticTable("bireal-capability", "Bi-Real Net, sections 3.1, 3.2 and figure 5", _computed("bireal_capability")),
    AnalyticTable("bireal-table3", "Bi-Real Net, table 3: memory and FLOPs", _computed("bireal_table_3")),
    AnalyticTable(
        "mlbma-entropy",
        "ML+BMA, section 4.2: the largest entropy of ResNet-20",
        _computed("mlbma_entropy_bound"),
    ),
    AnalyticTable("mlbma-table6", "ML+BMA, table 6: storage and FLOPs", _computed("mlbma_table_6")),
    AnalyticTable("presb-cost", "PresB-Net, section on FLOPs and storage", _computed("presb_cost")),
    AnalyticTable(
        "siman-corollaries",
        "SiMaN, corollaries 2 and 3: shares of +1 and angles",
        _computed("siman_corollaries"),
    ),
    Drawing("bnnplus-figure4", "BNN+, figure 4: estimators and their derivatives", _drawn("estimators")),
    Drawing("presb-figure5", "PresB-Net, figure 5: groups with a large gap, balanced", _drawn("large_gap")),
    Drawing("presb-figure6", "PresB-Net, figure 6: groups with a small gap, balanced", _drawn("small_gap")),
    Drawing("bnnplus-figure5", "BNN+, figure 5: regularizers", _drawn("regularizers")),
    *(TrainedTable(name, source, partial(trained.of_recipes, name)) for name, source in _OF_RECIPES.items()),
    TrainedTable("bireal-table2", "Bi-Real Net, table 2: Bi-Real-18 and -34 on ImageNet", trained.bireal_table_2),
    TrainedTable("bnnplus-table3", "BNN+, table 3: the best of table 2", trained.bnnplus_table_3),
    TrainedTable("presb-table1", "PresB-Net, table 1: real-valued initialization, CIFAR-100", trained.presb_table_1),
    TrainedTable("cifar10-resnet20", "ours: ResNet-20, CIFAR-10, each method in its paper's network form", ours.budget),
    TrainedTable("cifar10-larger", "ours: Bi-Real-18 and PresB-Net-10, CIFAR-10, the same schedule", ours.larger),
)


def tables() -> tuple[Table, ...]:
    """All tables, sorted by name."""
    return tuple(sorted(_TABLES, key=lambda table: table.name))


def get(name: str) -> Table:
    """The table with a name.

    Raises:
        UsageError: an unknown name; close names are suggested.
    """
    for table in _TABLES:
        if table.name == name:
            return table
    raise unknown("table", name, (table.name for table in _TABLES))
