"""Captures what native libraries write to stderr, which bypasses Python's `sys.stderr`."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO


class Log:
    """The captured output."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def text(self) -> str:
        self._file.seek(0)
        return self._file.read().decode(errors="replace")


# The file descriptor belongs to the whole process, so only one thread at a time may replace it.
_LOCK = threading.RLock()


@contextlib.contextmanager
def held_stderr(show_on_error: bool = False) -> Iterator[Log]:
    """Captures everything written to stderr within the block; with `show_on_error`, prints it if the block raises.

    Blocks in different threads run one after the other.
    """
    with _LOCK:
        yield from _held(show_on_error)


def _held(show_on_error: bool) -> Iterator[Log]:
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        log = Log(file)
        os.dup2(file.fileno(), 2)
        failed = True
        try:
            yield log
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if failed and show_on_error:
                sys.stderr.write(log.text())
