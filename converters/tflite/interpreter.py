"""Runs files in Larq Compute Engine's interpreter, in a child process.

The interpreter is native code that trusts the file: a damaged or hostile file may crash it, hang it or exhaust the
memory. In a child process, such a failure is contained. The child imports neither TensorFlow nor kbnn, runs one file
after another, and is restarted after a crash.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kbnn import files
from kbnn.converters.tflite import lce
from kbnn.converters.tflite.interpreter_child import Request
from kbnn.errors import KbnnError

# The kernels for binary convolutions. The stock Android library has only the default kernel.
KERNELS = ("default", "indirect", "reference")
# How many seconds after the timeout a child is killed that has not ended the run itself.
_GRACE = 2.0


class UnsupportedKernelError(KbnnError):
    """The file is valid, but this kernel does not run it."""


def run(
    data: bytes, inputs: Sequence[np.ndarray], *, kernel: str = "indirect", timeout: float = 600.0
) -> list[np.ndarray]:
    """Runs a file on a batch of inputs, one sample at a time, and returns its outputs `(B, ...)`.

    Args:
        data: the file's bytes.
        inputs: one array `(B, ...)` per input of the file, in the file's order.
        kernel: the kernel for binary convolutions, one of `KERNELS`.
        timeout: seconds after which a run is considered to hang.

    Raises:
        UnsupportedKernelError: the kernel does not support grouped binary convolutions.
        KbnnError: the file cannot be run: it is damaged, has other inputs or unknown operators, or it crashes or hangs.
    """
    lce.schema()  # Raises in this process if LCE is not installed.
    with files.scratch() as root:
        (root / "model.tflite").write_bytes(data)
        for k, array in enumerate(inputs):
            np.save(root / f"input{k}.npy", array)
        started = time.monotonic()
        status = _CHILD.ask({"folder": str(root), "kernel": kernel, "inputs": len(inputs), "timeout": timeout})
        _check(status, root, kernel, timeout, time.monotonic() - started)
        return [np.load(root / f"output{k}.npy") for k in range(len(list(root.glob("output*.npy"))))]


class Child:
    """A child process that runs `program` and answers requests; it is started by the first request."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._process: subprocess.Popen[str] | None = None
        self._starter = 0
        self._lock = threading.Lock()
        atexit.register(self.end)

    def ask(self, request: Request) -> int:
        """The exit status of a run, negative for a signal; if the run kills the child, the status of the child."""
        with self._lock:
            process = self._started()
            alarm = threading.Timer(request["timeout"] + _GRACE, process.kill)
            alarm.start()
            try:
                return self._answer(process, request)
            except BaseException:
                # Otherwise the next request would receive the answer to this one.
                process.kill()
                raise
            finally:
                alarm.cancel()

    @staticmethod
    def _answer(process: subprocess.Popen[str], request: Request) -> int:
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
        # A process that was forked from this one must not use its child.
        if self._process is None or self._process.poll() is not None or self._starter != os.getpid():
            self.end()
            # -I: what the child imports does not depend on the working directory or on environment variables.
            command = [sys.executable, "-I", str(self._program), str(lce.runtime_path())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                # Only a process with a single thread can be forked safely.
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


def _check(status: int, folder: Path, kernel: str, timeout: float, seconds: float) -> None:
    """Raises an error with one line of text if the run failed."""
    if status == 0:
        return
    if status < 0 and seconds >= timeout:
        raise KbnnError(
            f"the interpreter did not finish within {timeout:.0f} s: the file is damaged or too large for this machine"
        )
    log = folder / "log"
    message = " ".join(log.read_bytes().decode(errors="replace").split()) if log.exists() else ""
    if "Grouped binary convolutions are not supported with this kernel" in message:
        raise UnsupportedKernelError("this kernel does not support grouped binary convolutions: use the indirect one")
    if "Zero-padding is only supported by the reference kernel" in message:
        raise UnsupportedKernelError(_zero_padding(kernel))
    if status < 0:
        message = f"it was killed by {_signal(-status)}, {message or 'without a message'}"
    raise KbnnError(f"the interpreter cannot run the file: {message}; convert the model again")


def _zero_padding(kernel: str) -> str:
    if kernel == "reference":
        return "the reference kernel does not pad an odd number of channels with zeros: use pad_values=1.0"
    return "this kernel does not pad with zeros where a binary convolution returns int8: use pad_values=1.0"


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
