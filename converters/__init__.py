"""From a trained Keras model to a bitpacked TensorFlow Lite file that is proven equal.

>>> artifact = kbnn.converters.convert(model, "model.tflite")
>>> audit = kbnn.converters.inspect("model.tflite")
>>> parity = kbnn.converters.verify(model, "model.tflite", images)
>>> report = kbnn.converters.benchmark("model.tflite")
"""

import importlib
from typing import Any

# The function shadows the room of the same name, whose modules stay importable.
from kbnn.converters.benchmark import benchmark
from kbnn.converters.errors import ConversionError
from kbnn.converters.inspection import Audit, inspect

# These need TensorFlow, which is imported when one is asked for.
_HOMES = {
    "Artifact": "conversion",
    "Description": "description",
    "Parity": "verification",
    "convert": "conversion",
    "export_float": "stock",
    "export_int8": "stock",
    "verify": "verification",
}
__all__ = ["Audit", "ConversionError", "benchmark", "inspect", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kbnn.converters' has no attribute '{name}'")
    return getattr(importlib.import_module(f"kbnn.converters.{_HOMES[name]}"), name)
