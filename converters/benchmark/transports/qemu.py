"""Emulates a program for another architecture on this machine, which shows that it works, but not how fast it is."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from kbnn.converters.benchmark.program import Executable
from kbnn.converters.benchmark.transports.local import LocalTransport
from kbnn.converters.benchmark.transports.transport import Completed
from kbnn.errors import UsageError

# Where Debian's cross compilers put the other architecture's loader and C library.
_SYSROOTS = {"aarch64": "/usr/aarch64-linux-gnu", "arm": "/usr/arm-linux-gnueabihf"}


class QemuTransport(LocalTransport):
    """Runs programs under QEMU's user-mode emulation."""

    name = "qemu"

    def __init__(self, program: Executable) -> None:
        super().__init__()
        self._program = program
        self._emulator = _emulator(program)

    def run(self, command: Sequence[str], seconds: float) -> Completed:
        return super().run([*self._emulator, *command], seconds)

    def probe(self) -> dict[str, str]:
        """The emulated machine, according to the tool's executable; the state of this machine does not matter."""
        version = re.search(r"version ([\d.]+)", super().run([self._emulator[0], "--version"], seconds=60).stdout)
        return {
            "machine": str(self._program.architecture),
            "word_bits": str(self._program.word_bits),
            "emulator": f"QEMU {version[1]}" if version else "QEMU",
        }


def _emulator(program: Executable) -> list[str]:
    """The emulator's command line.

    Raises:
        UsageError: QEMU or the C library for the architecture is not installed, or the program is a script.
    """
    if program.architecture is None:
        raise UsageError(f"'{program.path}' is a script, which QEMU cannot emulate: give the release file itself")
    names = (f"qemu-{program.architecture}", f"qemu-{program.architecture}-static")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if not found:
        raise UsageError(f"no emulator for {program.architecture}: received '{program.path}', install qemu-user")
    if not program.loader:
        return [found]
    root = _SYSROOTS.get(program.architecture, "/")
    if not (Path(root) / program.loader.lstrip("/")).exists():
        raise UsageError(
            f"'{program.path}' needs {program.loader}, which is not under {root}; "
            f"install the C library for {program.architecture} (Debian: libc6-arm64-cross), or use a static tool"
        )
    return [found, "-L", root]
