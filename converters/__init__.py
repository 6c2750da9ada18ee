"""Converts a trained Keras model to a bitpacked TensorFlow Lite file, and proves that both compute the same.

>>> artifact = kbnn.converters.convert(model, "model.tflite")
>>> audit = kbnn.converters.inspect("model.tflite")
>>> parity = kbnn.converters.verify(model, "model.tflite", images)
>>> report = kbnn.converters.benchmark("model.tflite")
"""

import importlib
from typing import TYPE_CHECKING

# `benchmark` and `verify` are functions here, although there are packages of the same names.
from kbnn.converters.benchmark import benchmark
from kbnn.converters.errors import ConversionError
from kbnn.converters.tflite.audit import Audit, inspect

if TYPE_CHECKING:
    from kbnn.converters.baseline import export_float, export_int8
    from kbnn.converters.c.export import CExport, export_c
    from kbnn.converters.comparison import Deployments, deployments
    from kbnn.converters.conversion import Artifact, convert
    from kbnn.converters.tflite.metadata import Description
    from kbnn.converters.verify.verification import Parity, verify

# The modules of these names need TensorFlow, so they are imported on first use.
_HOMES = {
    "Artifact": "conversion",
    "Description": "tflite.metadata",
    "Parity": "verify.verification",
    "CExport": "c.export",
    "Deployments": "comparison",
    "convert": "conversion",
    "deployments": "comparison",
    "export_c": "c.export",
    "export_float": "baseline",
    "export_int8": "baseline",
    "verify": "verify.verification",
}
# Importing the package binds its name here; deleting the name lets __getattr__ find the function.
importlib.import_module("kbnn.converters.verify")
del globals()["verify"]
__all__ = [
    "Artifact",
    "Audit",
    "CExport",
    "ConversionError",
    "Deployments",
    "Description",
    "Parity",
    "benchmark",
    "convert",
    "deployments",
    "export_c",
    "export_float",
    "export_int8",
    "inspect",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'kbnn.converters' has no attribute '{name}'")
    return getattr(importlib.import_module(f"kbnn.converters.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
