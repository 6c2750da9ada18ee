"""Runs a local program with limits on its time and its output."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from kbnn.errors import KbnnError

# The real tool prints a few kilobytes; a device that misbehaves prints without end.
MOST_OUTPUT = 16 * 2**20
_PIECE = 2**16
# A program may leave children behind that keep its pipes open.
_PATIENCE = 5.0


class TooMuchOutputError(KbnnError):
    """The program printed more than any benchmark tool does."""


def call(
    command: Sequence[str],
    seconds: float,
    content: bytes = b"",
    folder: Path | None = None,
    largest_file: int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program; ends it and its children when it exceeds a limit, or when this process is interrupted.

    Args:
        command: program and arguments.
        seconds: how long it may take.
        content: what it reads on stdin.
        folder: where it runs.
        largest_file: the largest file that it may write, in bytes.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took longer than `seconds`.
        TooMuchOutputError: it printed more than 16 MB.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if content else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        # A session of its own, so that its children can be ended with it.
        start_new_session=True,
        preexec_fn=None if largest_file is None else lambda: _limit_files(largest_file),
    )
    readers = [_PipeReader(pipe, process) for pipe in (process.stdout, process.stderr) if pipe is not None]
    try:
        if process.stdin is not None:
            threading.Thread(target=_feed, args=(process.stdin, content), daemon=True).start()
        process.wait(seconds)
        for reader in readers:
            reader.join(_PATIENCE)
    finally:
        if process.poll() is None or any(reader.is_alive() for reader in readers):
            end(process)
        for reader in readers:
            reader.join(_PATIENCE)
    if any(reader.is_full for reader in readers):
        program = Path(command[0]).name
        raise TooMuchOutputError(
            f"'{program}' was stopped after {MOST_OUTPUT >> 20} MB of output: no benchmark tool prints that much; "
            f"look at what the device runs"
        )
    stdout, stderr = (bytes(reader.content) for reader in readers)
    return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that leads a session of its own, and its children."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    process.wait()


class _PipeReader(threading.Thread):
    """Collects a pipe until it ends or more than is allowed has come."""

    def __init__(self, pipe: IO[bytes], process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self.content = bytearray()
        self.is_full = False
        self._pipe = pipe
        self._process = process
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._pipe:
            while piece := os.read(self._pipe.fileno(), _PIECE):
                self.content += piece
                if len(self.content) > MOST_OUTPUT:
                    self.is_full = True
                    self.content.clear()
                    with contextlib.suppress(OSError):
                        os.killpg(self._process.pid, signal.SIGKILL)
                    return


def _feed(pipe: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(OSError), pipe:
        pipe.write(content)


def _limit_files(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
