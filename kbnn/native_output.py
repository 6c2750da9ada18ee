"""Stderr: captures what native libraries write there, and survives the loss of its terminal."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, TextIO, cast


class Log:
    """The captured output."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def text(self) -> str:
        self._file.seek(0)
        return self._file.read().decode(errors="replace")


class _Lossy:
    """A text stream that drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def lossy(stream: TextIO) -> TextIO:
    """The stream, without errors once its terminal or pipe is gone: work must be saved without its messages, too."""
    return cast(TextIO, _Lossy(stream))


@contextlib.contextmanager
def lossy_stderr() -> Iterator[None]:
    """Within the block, messages on `sys.stderr` that cannot be written are dropped."""
    kept = sys.stderr
    sys.stderr = lossy(kept)
    try:
        yield
    finally:
        sys.stderr = kept
        try:
            kept.flush()
        except OSError:
            # Python flushes once more when it ends, and an error there would change the exit status.
            os.dup2(os.open(os.devnull, os.O_WRONLY), kept.fileno())


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
    stderr = lossy(sys.stderr)
    stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        log = Log(file)
        os.dup2(file.fileno(), 2)
        failed = True
        try:
            yield log
            failed = False
        finally:
            stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if failed and show_on_error:
                stderr.write(log.text())
