"""Runs the tool on this machine."""

import contextlib
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kbnn import files
from kbnn.converters.benchmark.transports.process import call
from kbnn.converters.benchmark.transports.transport import Completed, Transport, took_too_long
from kbnn.errors import KbnnError


class LocalTransport(Transport):
    """Runs programs on this machine; files are used where they are."""

    name = "local"

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._scratch = contextlib.ExitStack()

    def open(self) -> None:
        # This also removes the folders of killed processes.
        self.folder = self._scratch.enter_context(files.scratch())

    def close(self) -> None:
        self._scratch.close()
        self.folder = None

    def put(self, path: Path, executable: bool = False) -> str:
        if not executable or path.stat().st_mode & stat.S_IXUSR:
            return str(path.resolve())
        # A downloaded tool is not executable, so an executable copy is made.
        copy = self._private / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o700)
        return str(copy)

    def run(self, command: Sequence[str], seconds: float) -> Completed:
        try:
            done = call(command, seconds, folder=self._private)
        except subprocess.TimeoutExpired as error:
            raise took_too_long(command, seconds) from error
        except OSError as error:
            raise KbnnError(f"cannot run '{command[0]}': {error.strerror}; is it meant for this machine?") from error
        return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def send(self, path: Path, name: str) -> None:
        shutil.copyfile(path, self._private / name)

    def fetch(self, name: str) -> bytes:
        return (self._private / name).read_bytes()

    @property
    def _private(self) -> Path:
        if self.folder is None:
            raise RuntimeError("open the transport first")
        return self.folder
