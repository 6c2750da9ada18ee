"""How files, commands and results travel to where the tool runs."""

import abc
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kbnn.errors import KbnnError

PROBE = Path(__file__).parents[1] / "probe.sh"


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end."""

    status: int
    stdout: str
    stderr: str


class ConnectionLostError(KbnnError):
    """The device went away. What ran before counts; whatever ran meanwhile does not."""


class Transport(abc.ABC):
    """A place to run commands in: open, put files there, run, fetch what they wrote, close.

    Commands are argument lists. Where a shell lies on the way they are quoted here, nowhere else.
    """

    name: str

    @contextlib.contextmanager
    def session(self) -> Iterator["Transport"]:
        """The transport with its private folder, which is removed whatever happens.

        Raises:
            KbnnError: the place cannot be reached.
        """
        try:
            self.open()
            yield self
        finally:
            self.close()

    @abc.abstractmethod
    def open(self) -> None:
        """Makes the private folder; once more after a lost connection, when it stops what was left running first."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stops what runs and removes the private folder. Never raises: a device that is gone cannot be cleaned."""

    @abc.abstractmethod
    def put(self, path: Path, executable: bool = False) -> str:
        """Brings a file there unless it is there already, told by its hash; returns its path there."""

    @abc.abstractmethod
    def run(self, command: Sequence[str], seconds: float) -> Completed:
        """Runs a program in the private folder.

        Raises:
            ConnectionLostError: the connection broke before it ended.
            KbnnError: it took longer than `seconds`.
        """

    @abc.abstractmethod
    def send(self, path: Path, name: str) -> None:
        """Copies a file into the private folder."""

    @abc.abstractmethod
    def fetch(self, name: str) -> bytes:
        """The content of a file in the private folder."""

    def probe(self) -> dict[str, str]:
        """What the place says of itself: the lines of probe.sh."""
        lines = self.run(["sh", "-c", PROBE.read_text()], seconds=60).stdout.splitlines()
        return {key: value.strip() for key, mark, value in (line.partition("=") for line in lines) if mark}


def took_too_long(command: Sequence[str], seconds: float) -> KbnnError:
    """The error for a command that was stopped."""
    program = command[0].rsplit("/", 1)[-1]
    return KbnnError(f"'{program}' was stopped after {seconds:.0f} s; ask for fewer runs, or a smaller file")
