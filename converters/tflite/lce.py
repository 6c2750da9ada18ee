"""Loads modules of Larq Compute Engine without importing its package.

The package imports TensorFlow, which takes seconds and half a gigabyte, and which reading or running a file does not
need.
"""

import functools
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import flatbuffers

from kbnn.converters.tflite import budget
from kbnn.errors import KbnnError

# An object of a class in `schema()`. The classes are generated and loaded at run time, so they have no static types.
SchemaObject: TypeAlias = Any

# The number of channels whose signs are packed into one word.
CHANNELS_PER_WORD = 32
# From this many values of a group's input on, the indirect kernel, the only fast one that runs groups, is portable C++.
INDIRECT_LIMIT = 65_535


@functools.cache
def schema() -> ModuleType:
    """The FlatBuffers classes of the TFLite format."""
    path = _folder() / "mlir" / "python" / "tflite_schema.py"
    loader = importlib.machinery.SourceFileLoader(path.stem, str(path))
    spec = importlib.machinery.ModuleSpec(path.stem, loader, origin=str(path))
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    # This copy of the module belongs to kbnn: everything that is read through it is charged against a budget.
    metered = types.SimpleNamespace(Table=budget.MeteredTable)
    vars(module)["flatbuffers"] = types.SimpleNamespace(**{**vars(flatbuffers), "table": metered})
    return module


def runtime_path() -> Path:
    """The native module with `LiteInterpreter`, for the process that runs it (see `interpreter`)."""
    return next((_folder() / "tflite" / "python").glob("interpreter_wrapper_lite.*"))


def _folder() -> Path:
    spec = importlib.util.find_spec("larq_compute_engine")
    if spec is None or not spec.submodule_search_locations:
        raise KbnnError(
            f"larq-compute-engine is not installed for this platform ({sys.platform}): it has wheels for Linux on "
            f"x86-64, macOS on ARM and Windows; convert and verify there"
        )
    return Path(spec.submodule_search_locations[0])
