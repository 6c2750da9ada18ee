"""Reproduces the papers' tables: computed if they follow from formulas and counts, trained if they are accuracies.

>>> print(kbnn.reproduction.get("siman-corollaries").compare(kbnn.models.build))
"""

from kbnn.reproduction.accuracy import AccuracyTable, Outcome, Row, reproduce
from kbnn.reproduction.comparison import Cell, TableComparison
from kbnn.reproduction.registry import AnalyticTable, Drawing, TrainedTable, get, tables
from kbnn.reproduction.sweep import Sweep

__all__ = [
    "AccuracyTable",
    "AnalyticTable",
    "Cell",
    "Drawing",
    "Outcome",
    "Row",
    "Sweep",
    "TableComparison",
    "TrainedTable",
    "get",
    "reproduce",
    "tables",
]
