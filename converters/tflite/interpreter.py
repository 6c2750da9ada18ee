"""Running files in Larq Compute Engine's interpreter, in a process of its own.

The interpreter is native code that trusts the file: a damaged or hostile one may crash it, hang it or make it allocate
all memory. So it runs in a child process. The child imports neither TensorFlow nor kbnn, runs one file after another,
and is started again when it has died.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kbnn import files
from kbnn.converters.tflite import lce
from kbnn.errors import KbnnError

# The kernels for binary convolutions. The default one is the only one in the stock Android library.
KERNELS = ("default", "indirect", "reference")
# Seconds after which a child that has not stopped a run itself is killed.
_GRACE = 2.0


class UnsupportedKernelError(KbnnError):
    """The file is valid, but this kernel does not run it."""


def run(
    data: bytes, inputs: Sequence[np.ndarray], *, kernel: str = "indirect", timeout: float = 600.0
) -> list[np.ndarray]:
    """The outputs of a file for a batch of inputs, one sample at a time, each output `(B, ...)`.

    Args:
        data: the file's bytes.
        inputs: one array `(B, ...)` per input of the file, in the file's order.
        kernel: which of `KERNELS` computes the binary convolutions.
        timeout: seconds after which the run counts as hung.

    Raises:
        UnsupportedKernelError: the kernel refuses grouped binary convolutions.
        KbnnError: the file cannot be run: damaged, of another shape, with unknown operators, or it crashed or hung.
    """
    lce.schema()  # Raises in this process where LCE is not installed.
    with files.scratch() as root:
        (root / "model.tflite").write_bytes(data)
        for k, array in enumerate(inputs):
            np.save(root / f"input{k}.npy", array)
        started = time.monotonic()
        status = _CHILD.ask({"folder": str(root), "kernel": kernel, "inputs": len(inputs), "timeout": timeout})
        _check(status, root, timeout, time.monotonic() - started)
        return [np.load(root / f"output{k}.npy") for k in range(len(list(root.glob("output*.npy"))))]


class Child:
    """A process of `program` that answers requests; it is started when it is first asked."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._process: subprocess.Popen[str] | None = None
        self._starter = 0
        self._lock = threading.Lock()
        atexit.register(self.end)

    def ask(self, request: Mapping[str, Any]) -> int:
        """The exit status of a run, negative for a signal; the child's own where the request kills it."""
        with self._lock:
            process = self._started()
            alarm = threading.Timer(request["timeout"] + _GRACE, process.kill)
            alarm.start()
            try:
                return self._answer(process, request)
            except BaseException:
                # Its answer must not be taken for the answer to the next request.
                process.kill()
                raise
            finally:
                alarm.cancel()

    @staticmethod
    def _answer(process: subprocess.Popen[str], request: Mapping[str, Any]) -> int:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the child has no pipes")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return int(answer) if answer else process.wait()

    def _started(self) -> subprocess.Popen[str]:
        # A process that was forked from ours must not use its child.
        if self._process is None or self._process.poll() is not None or self._starter != os.getpid():
            self.end()
            # -I: neither the working directory nor the user's variables decide what the child imports.
            command = [sys.executable, "-I", str(self._program), str(lce.runtime_path())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # Only a process with one thread can be forked safely.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            self._starter = os.getpid()
        return self._process

    def end(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is None or self._starter != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


_CHILD = Child(Path(__file__).with_name("interpreter_child.py"))


def _check(status: int, folder: Path, timeout: float, seconds: float) -> None:
    """Raises an error of one line if the run failed."""
    if status == 0:
        return
    if status < 0 and seconds >= timeout:
        raise KbnnError(
            f"the interpreter did not finish within {timeout:.0f} s: the file is damaged or too large for this machine"
        )
    log = folder / "log"
    message = " ".join(log.read_bytes().decode(errors="replace").split()) if log.exists() else ""
    if "Grouped binary convolutions are not supported with this kernel" in message:
        raise UnsupportedKernelError("this kernel does not run grouped binary convolutions: use the indirect one")
    if "Zero-padding is only supported by the reference kernel" in message:
        raise UnsupportedKernelError("the reference kernel does not pad an odd number of channels with zeros")
    if status < 0:
        message = f"it died of {_signal(-status)}, {message or 'without a message'}"
    raise KbnnError(f"the interpreter cannot run the file: {message}; convert the model again")


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
