"""Native libraries write to file descriptor 2 whatever Python does: here it is held back, and can be read."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO


class Log:
    """What was written while stderr was held back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def lines(self, prefix: str) -> list[str]:
        """The lines that begin with `prefix`, each once, without it."""
        self._file.seek(0)
        text = self._file.read().decode(errors="replace")
        found = [line.removeprefix(prefix).strip() for line in text.splitlines() if line.startswith(prefix)]
        return list(dict.fromkeys(found))


@contextlib.contextmanager
def held_stderr() -> Iterator[Log]:
    """Holds back everything that is written to stderr within the block."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield Log(file)
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
