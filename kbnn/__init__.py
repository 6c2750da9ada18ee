"""kbnn: practical binary neural networks on Keras and Larq, from the papers' methods to bitpacked TensorFlow Lite.

>>> import kbnn
>>> model = kbnn.models.build("tiny", method="bireal", input_shape=(8, 8, 1), classes=10)

Importing kbnn only selects tf.keras 2, which Larq needs; TensorFlow is imported when a package is first used.
"""

import importlib
from typing import Any

from kbnn import _keras

__version__ = "0.2.0"

_PACKAGES = (
    "accounting",
    "analysis",
    "converters",
    "datasets",
    "errors",
    "examples",
    "layers",
    "loading",
    "methods",
    "models",
    "pretrained",
    "quantizers",
    "regularizers",
    "reproduction",
    "testing",
    "training",
    "weights",
)
# Classes with their modules, which are imported on first use.
_CLASSES = {"Classifier": "kbnn.converters.classifier"}
__all__ = [*_PACKAGES, *_CLASSES]

_keras.select_legacy_keras()
_keras.quiet_in_notebooks()
_keras.register_with_keras("kbnn.activations", "kbnn.layers", "kbnn.quantizers", "kbnn.regularizers")


# Any, because the packages, which are imported late for TensorFlow's sake, have no common type.
def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"kbnn.{name}")
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    raise AttributeError(f"module 'kbnn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
