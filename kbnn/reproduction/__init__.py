"""The papers' tables compared with ours: computed where they follow from counts, trained where they are accuracies.

>>> print(kbnn.reproduction.get("siman-corollaries").compare(kbnn.models.build))
"""

from kbnn.reproduction.accuracy import AccuracyTable, Outcome, Row, reproduce
from kbnn.reproduction.comparison import Cell, Comparison
from kbnn.reproduction.registry import Accuracy, Analytic, Drawing, get, tables
from kbnn.reproduction.sweep import Sweep

__all__ = [
    "Accuracy",
    "AccuracyTable",
    "Analytic",
    "Cell",
    "Comparison",
    "Drawing",
    "Outcome",
    "Row",
    "Sweep",
    "get",
    "reproduce",
    "tables",
]
