"""Larq is a tf.keras 2 library: this module makes `tf.keras` mean tf-keras, and Keras know our classes."""

import importlib
import os
import sys
from types import ModuleType

import wrapt

VARIABLE = "TF_USE_LEGACY_KERAS"
_TRUE = ("1", "true", "True")


def select_legacy_keras() -> None:
    """Sets `TF_USE_LEGACY_KERAS=1` while that still decides what `tf.keras` is.

    Raises:
        ImportError: `tf.keras` is Keras 3 already, or the variable is set to something else.
    """
    received = os.environ.get(VARIABLE)
    if received is not None and received not in _TRUE:
        raise ImportError(f"kbnn needs tf.keras 2: received {VARIABLE}={received!r}, set {VARIABLE}=1 or unset it")
    if _is_keras_3(sys.modules.get("tensorflow")):
        raise ImportError(
            f"kbnn needs tf.keras 2, but TensorFlow was imported before kbnn and tf.keras is Keras 3 already: "
            f"set {VARIABLE}=1 in the environment, or import kbnn before tensorflow"
        )
    os.environ[VARIABLE] = "1"


def _is_keras_3(tensorflow: ModuleType | None) -> bool:
    """Whether an imported TensorFlow has resolved its lazily loaded `tf.keras` to Keras 3."""
    keras = vars(tensorflow).get("keras") if tensorflow else None
    if keras is None:
        return False
    if type(keras) is ModuleType:
        return not keras.__name__.startswith("tf_keras")
    return vars(keras).get("_tfll_keras_version") == "keras_3"


def register_with_keras(*modules: str) -> None:
    """Imports `modules` as soon as tf-keras is imported, so that saved models load with kbnn merely imported."""

    @wrapt.when_imported("tf_keras")
    def _register(_: ModuleType) -> None:
        for module in modules:
            importlib.import_module(module)
