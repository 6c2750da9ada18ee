"""kbnn: practical binary neural networks on Keras and Larq, from the papers' methods to bitpacked TensorFlow Lite.

>>> import kbnn
>>> model = kbnn.models.build("tiny", method="bireal", input_shape=(8, 8, 1), classes=10)

Importing kbnn selects tf.keras 2 (Larq's Keras) and nothing else: TensorFlow is imported when a room is first used.
"""

import importlib
from types import ModuleType

from kbnn import _keras

__version__ = "0.1.0"

_ROOMS = (
    "accounting",
    "analysis",
    "converters",
    "datasets",
    "errors",
    "examples",
    "layers",
    "methods",
    "models",
    "quantizers",
    "regularizers",
    "reproduction",
    "testing",
    "training",
    "weights",
)
__all__ = [*_ROOMS]

_keras.select_legacy_keras()
_keras.register_with_keras("kbnn.activations", "kbnn.layers", "kbnn.quantizers", "kbnn.regularizers")


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"kbnn.{name}")
    raise AttributeError(f"module 'kbnn' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
