"""The program that `native` starts: FOLDER KERNEL INPUTS RUNTIME. It imports NumPy and the native runtime, no more."""

import contextlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

_MOST_MEMORY = 8 * 2**30


def main(folder: str, kernel: str, inputs: str, runtime: str) -> None:
    """Runs `model.tflite` on the samples of `input*.npy` and writes `output*.npy`."""
    _limit_memory()
    root = Path(folder)
    arrays = [np.load(root / f"input{k}.npy") for k in range(int(inputs))]
    interpreter = _interpreter((root / "model.tflite").read_bytes(), kernel, Path(runtime))
    samples = [interpreter.predict([array[k : k + 1] for array in arrays]) for k in range(len(arrays[0]))]
    for k, outputs in enumerate(zip(*samples, strict=True)):
        np.save(root / f"output{k}.npy", np.concatenate(outputs))


def _limit_memory() -> None:
    # Windows has no such limit; there a hostile file meets the machine's own.
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def _interpreter(data: bytes, kernel: str, runtime: Path) -> Any:
    loader = importlib.machinery.ExtensionFileLoader("interpreter_wrapper_lite", str(runtime))
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(loader.name, loader, origin=str(runtime)))
    loader.exec_module(module)
    return module.LiteInterpreter(data, 1, kernel == "reference", kernel == "indirect", False)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        sys.exit(str(error))
