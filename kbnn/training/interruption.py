"""Being asked to stop: Ctrl-C and SIGTERM end a run after the step under way, with everything saved."""

import signal
import threading
from types import FrameType
from typing import Any

from kbnn.errors import KbnnError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(KbnnError):
    """Training was asked to stop, and did. The exit status is the shell's for the signal: 130 or 143.

    Args:
        what: stopped, and where it is saved.
        received: what asked.
        how: to go on.
    """

    def __init__(self, what: str, received: signal.Signals, how: str) -> None:
        super().__init__(f"{what}, go on with {how}")
        self.what = what
        self.received = received
        self.exit_status = 128 + received


class Interruption:
    """Notes SIGINT and SIGTERM within its block; the second one takes its usual course at once.

    Outside of the main thread, where Python lets nobody handle signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
