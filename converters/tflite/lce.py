"""Larq Compute Engine's parts, each loaded by itself.

Importing them through their package would import TensorFlow, which costs seconds and half a gigabyte; reading and
running a file needs neither.
"""

import functools
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from kbnn.errors import KbnnError


@functools.cache
def schema() -> ModuleType:
    """The FlatBuffers classes of the TFLite format."""
    path = _folder() / "mlir" / "python" / "tflite_schema.py"
    loader = importlib.machinery.SourceFileLoader(path.stem, str(path))
    spec = importlib.machinery.ModuleSpec(path.stem, loader, origin=str(path))
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def runtime_path() -> Path:
    """The native module with `LiteInterpreter`, for the process that runs it, see `native`."""
    return next((_folder() / "tflite" / "python").glob("interpreter_wrapper_lite.*"))


def _folder() -> Path:
    spec = importlib.util.find_spec("larq_compute_engine")
    if spec is None or not spec.submodule_search_locations:
        raise KbnnError(
            f"larq-compute-engine is not installed for this platform ({sys.platform}): it has wheels for Linux on "
            f"x86-64, macOS on ARM and Windows; convert and verify there"
        )
    return Path(spec.submodule_search_locations[0])
