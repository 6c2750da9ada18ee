"""Running files in Larq Compute Engine's interpreter, in a process of its own.

The interpreter is native code that trusts the file: a damaged or hostile one may crash it, hang it or make it take all
memory. So it runs in a child process, which may die of that; it also starts in a fraction of a second, because the
child imports neither TensorFlow nor kbnn.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kbnn.converters import lce
from kbnn.errors import KbnnError

# Kernel name -> what the interpreter is asked for. The default kernel is also the stock Android library's.
KERNELS = ("default", "indirect", "reference")
_CHILD = Path(__file__).with_name("native_child.py")


class UnsupportedKernelError(KbnnError):
    """The file is sound, but this kernel does not run it."""


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
    lce.schema()  # Says in this process what is missing on platforms without LCE.
    with tempfile.TemporaryDirectory(prefix="kbnn-") as folder:
        root = Path(folder)
        (root / "model.tflite").write_bytes(data)
        for k, array in enumerate(inputs):
            np.save(root / f"input{k}.npy", array)
        _call([str(root), kernel, str(len(inputs)), str(lce.runtime_path())], timeout)
        return [np.load(root / f"output{k}.npy") for k in range(len(list(root.glob("output*.npy"))))]


def _call(arguments: list[str], timeout: float) -> None:
    # -I: neither the working directory nor the user's variables decide what the child imports.
    command = [sys.executable, "-I", str(_CHILD), *arguments]
    try:
        finished = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise KbnnError(
            f"the interpreter did not finish within {timeout:.0f} s: the file is damaged or too large for this machine"
        ) from error
    if finished.returncode == 0:
        return
    message = " ".join(finished.stderr.decode(errors="replace").split())
    if "Grouped binary convolutions are not supported with this kernel" in message:
        raise UnsupportedKernelError("this kernel does not run grouped binary convolutions: use the indirect one")
    if finished.returncode < 0:
        message = f"it died of signal {-finished.returncode}, {message or 'without a word'}"
    raise KbnnError(f"the interpreter cannot run the file: {message}; convert the model again")
