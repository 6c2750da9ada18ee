"""Runs a local program with limits on time and output."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from kbnn.errors import KbnnError

# The real tool prints a few kilobytes; a faulty device may print without end.
MOST_OUTPUT = 16 * 2**20
_PIECE = 2**16
# Seconds to wait for the pipes to close: children that a program leaves behind may keep them open.
_PATIENCE = 5.0


class TooMuchOutputError(KbnnError):
    """A program printed more than any benchmark tool does."""


def call(
    command: Sequence[str],
    seconds: float,
    content: bytes = b"",
    folder: Path | None = None,
    largest_file: int | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program; kills it and its children if it exceeds a limit, or if this process is interrupted.

    Args:
        command: the program and its arguments.
        seconds: how long the program may run.
        content: what the program reads on stdin.
        folder: the working directory.
        largest_file: the largest file that the program may write, in bytes.

    Raises:
        OSError: the program cannot be started.
        subprocess.TimeoutExpired: the program took longer than `seconds`.
        TooMuchOutputError: the program printed more than 16 MB.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if content else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        # In its own session, so that its children can be killed with it.
        start_new_session=True,
        preexec_fn=None if largest_file is None else lambda: _limit_files(largest_file),
    )
    readers = [_PipeReader(pipe, process) for pipe in (process.stdout, process.stderr) if pipe is not None]
    try:
        if process.stdin is not None:
            threading.Thread(target=_feed, args=(process.stdin, content), daemon=True).start()
        process.wait(seconds)
        _join(readers)
    except BaseException:
        # Nobody reads the output now. ssh's shared connection may keep the pipes open, so they are not waited for.
        end(process)
        raise
    if any(reader.is_alive() for reader in readers):
        end(process)
        _join(readers)
    if any(reader.is_full for reader in readers):
        program = Path(command[0]).name
        raise TooMuchOutputError(
            f"'{program}' was stopped after {MOST_OUTPUT >> 20} MB of output: no benchmark tool prints that much; "
            f"look at what the device runs"
        )
    stdout, stderr = (bytes(reader.content) for reader in readers)
    return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that leads its own session, and its children."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
    process.wait()


class _PipeReader(threading.Thread):
    """Reads a pipe until it ends, or until there is more output than allowed."""

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


def _join(readers: Sequence[_PipeReader]) -> None:
    for reader in readers:
        reader.join(_PATIENCE)


def _feed(pipe: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(OSError), pipe:
        pipe.write(content)


def _limit_files(size: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
