"""How files, commands and results travel to where the tool runs."""

import abc
import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kbnn.errors import KbnnError
from kbnn.printable import printable

PROBE = Path(__file__).parents[1] / "probe.sh"
_LONGEST_FACT = 200
_MOST_FACTS = 100


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end."""

    status: int
    stdout: str
    stderr: str


class ConnectionLostError(KbnnError):
    """The device went away. What ran before counts; what was running does not."""


class Transport(abc.ABC):
    """A place to run commands in: open, put files there, run, fetch what they wrote, close.

    Commands are argument lists; a transport that goes through a shell quotes them.
    """

    name: str

    @contextlib.contextmanager
    def session(self) -> Iterator["Transport"]:
        """The transport with its private folder, which is removed whatever happens, SIGTERM and SIGHUP included.

        Raises:
            KbnnError: the place cannot be reached.
        """
        with _signals_as_exceptions():
            try:
                self.open()
                yield self
            finally:
                self.close()

    @abc.abstractmethod
    def open(self) -> None:
        """Makes the private folder. After a lost connection, first stops what was left running."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stops what runs and removes the private folder. Never raises: a device that is gone cannot be cleaned."""

    @abc.abstractmethod
    def put(self, path: Path, executable: bool = False) -> str:
        """Brings a file there unless a file of the same hash is there already; returns its path there."""

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
        """What the place says about itself: the lines of probe.sh, which are foreign text."""
        lines = self.run(["sh", "-c", PROBE.read_text()], seconds=60).stdout.splitlines()
        facts = (line.partition("=") for line in lines[:_MOST_FACTS])
        return {
            key: printable(value.strip(), longest=_LONGEST_FACT)
            for key, mark, value in facts
            if mark and re.fullmatch(r"\w{1,40}", key)
        }


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Lets the session clean up before SIGTERM or SIGHUP ends the process. Signals reach the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous = {number: signal.getsignal(number) for number in numbers}
    # A process that was started with nohup ignores SIGHUP; so it stays.
    changed = [number for number in numbers if previous[number] == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, previous[number])


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def took_too_long(command: Sequence[str], seconds: float) -> KbnnError:
    """The error for a command that was stopped."""
    program = command[0].rsplit("/", 1)[-1]
    return KbnnError(f"'{program}' was stopped after {seconds:.0f} s; ask for fewer runs, or a smaller file")
