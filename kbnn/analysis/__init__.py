"""Diagnostics of binary networks, as tables and figures.

>>> print(kbnn.analysis.report(model, kbnn.datasets.load("digits")))
"""

import importlib
from typing import TYPE_CHECKING

from kbnn.analysis.angle import angle
from kbnn.analysis.measures import (
    activation_entropy,
    batch_median,
    entropy,
    flip_ratio,
    network_entropy,
    optimal_proportion,
    paper_quantization_errors,
    proportion_positive,
    quantization_error,
    weight_entropy,
)
from kbnn.analysis.report import LayerReport, Report, drawings, report
from kbnn.analysis.weight_history import WeightHistory

if TYPE_CHECKING:
    from kbnn.analysis.diagnostics import Diagnostics

__all__ = [
    "Diagnostics",
    "LayerReport",
    "Report",
    "WeightHistory",
    "activation_entropy",
    "angle",
    "batch_median",
    "drawings",
    "entropy",
    "flip_ratio",
    "network_entropy",
    "optimal_proportion",
    "paper_quantization_errors",
    "proportion_positive",
    "quantization_error",
    "report",
    "weight_entropy",
]


def __getattr__(name: str) -> object:
    # A Keras callback, imported on first use.
    if name == "Diagnostics":
        return importlib.import_module("kbnn.analysis.diagnostics").Diagnostics
    raise AttributeError(f"module 'kbnn.analysis' has no attribute '{name}'")
