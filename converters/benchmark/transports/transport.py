"""The interface of transports, which bring files and commands to a device and results back."""

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
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str


class ConnectionLostError(KbnnError):
    """The connection was lost. Commands that had ended before are valid; the one that was running is not."""


class Transport(abc.ABC):
    """A place to run commands: open it, put files there, run commands, fetch what they wrote, and close it.

    Commands are lists of arguments; a transport that uses a shell quotes them.
    """

    name: str

    @contextlib.contextmanager
    def session(self) -> Iterator["Transport"]:
        """Opens the transport, and closes it at the end, even after an exception, SIGTERM or SIGHUP.

        Raises:
            KbnnError: the device cannot be reached.
        """
        with _signals_as_exceptions():
            try:
                self.open()
                yield self
            finally:
                self.close()

    @abc.abstractmethod
    def open(self) -> None:
        """Makes the private folder. After a lost connection, it also stops what was left running."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stops what runs and removes the private folder. Never raises, because a lost device cannot be cleaned up."""

    @abc.abstractmethod
    def put(self, path: Path, executable: bool = False) -> str:
        """Copies a file to the device unless it is there already; returns its path there."""

    @abc.abstractmethod
    def run(self, command: Sequence[str], seconds: float) -> Completed:
        """Runs a program in the private folder.

        Raises:
            ConnectionLostError: the connection was lost before the program ended.
            KbnnError: the program took longer than `seconds`.
        """

    @abc.abstractmethod
    def send(self, path: Path, name: str) -> None:
        """Copies a file into the private folder."""

    @abc.abstractmethod
    def fetch(self, name: str) -> bytes:
        """The content of a file in the private folder."""

    def probe(self) -> dict[str, str]:
        """What the device reports about itself: the output of probe.sh, which cannot be trusted."""
        lines = self.run(["sh", "-c", PROBE.read_text()], seconds=60).stdout.splitlines()
        facts = (line.partition("=") for line in lines[:_MOST_FACTS])
        return {
            key: printable(value.strip(), longest=_LONGEST_FACT)
            for key, mark, value in facts
            if mark and re.fullmatch(r"\w{1,40}", key)
        }


@contextlib.contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Lets the session clean up before SIGTERM or SIGHUP ends the process; works only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous = {number: signal.getsignal(number) for number in numbers}
    # A process that was started with nohup must keep ignoring SIGHUP.
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
