"""The program that `interpreter` runs in a child process; its argument is the path of the native runtime.

It imports only NumPy and that runtime. Each line on stdin is a request to run a file, answered on stdout with an exit
status, negative for a signal. If the system can fork, each run gets its own process, so that one file cannot affect the
next; if not, this process ends after a run that fails.
"""

import contextlib
import functools
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import TypedDict

import numpy as np

_MOST_MEMORY = 8 * 2**30
_FAILED = 1


class Request(TypedDict):
    """A folder with `model.tflite` and one `input*.npy` per input, and how to run the file, in at most `timeout` s."""

    folder: str
    kernel: str
    inputs: int
    timeout: float


def serve(runtime: str) -> None:
    """Answers requests until stdin ends."""
    _limit_resources()
    # An interrupt is meant for the parent process; this one ends silently.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Loaded once for all runs; if that fails, each run reports the error.
    with contextlib.suppress(Exception):
        _module(runtime)
    for line in sys.stdin:
        request = json.loads(line)
        status = _forked(request, runtime) if hasattr(os, "fork") else _attempt(request, runtime)
        print(status, flush=True)  # noqa: T201
        if status and not hasattr(os, "fork"):
            return


def _limit_resources() -> None:
    # Windows has no such limits, and macOS refuses some of them.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def _forked(request: Request, runtime: str) -> int:
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = _FAILED
    try:
        # The default action of SIGALRM ends the process, even inside native code.
        signal.setitimer(signal.ITIMER_REAL, request["timeout"])
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = _attempt(request, runtime)
    finally:
        os._exit(status)


def _attempt(request: Request, runtime: str) -> int:
    """Runs a file; errors are written to `log`, as are the messages of native code."""
    folder = Path(request["folder"])
    os.dup2(os.open(folder / "log", os.O_WRONLY | os.O_CREAT), 2)
    try:
        _run(folder, request["kernel"], request["inputs"], runtime)
    except Exception as error:
        os.write(2, str(error).encode())
        return _FAILED
    return 0


def _run(folder: Path, kernel: str, inputs: int, runtime: str) -> None:
    """Runs `model.tflite` on the samples of `input*.npy` and writes `output*.npy`."""
    arrays = [np.load(folder / f"input{k}.npy") for k in range(inputs)]
    data = (folder / "model.tflite").read_bytes()
    interpreter = _module(runtime).LiteInterpreter(data, 1, kernel == "reference", kernel == "indirect", False)
    samples = [interpreter.predict([array[k : k + 1] for array in arrays]) for k in range(len(arrays[0]))]
    for k, outputs in enumerate(zip(*samples, strict=True)):
        np.save(folder / f"output{k}.npy", np.concatenate(outputs))


@functools.cache
def _module(runtime: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader("interpreter_wrapper_lite", runtime)
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(loader.name, loader, origin=runtime))
    loader.exec_module(module)
    return module


if __name__ == "__main__":
    serve(sys.argv[1])
