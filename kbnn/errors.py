"""Expected failures: each error is one line that says what failed, what was received and what to do."""

import difflib
from collections.abc import Iterable


class KbnnError(Exception):
    """The work failed, or a check fell short. The command line prints it as one line and exits with status 1.

    Attributes:
        parameter: name of the Python parameter that changes the outcome, or None. The command line adds the option of
            that name to the message, if the command has one.
    """

    exit_status = 1
    parameter: str | None = None

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter or self.parameter


class UsageError(KbnnError, ValueError):
    """The request is invalid: an unknown name, a wrong value, a path of the wrong kind. Exit status 2."""

    exit_status = 2


def unknown(kind: str, received: str, known: Iterable[str]) -> UsageError:
    """An error for an unknown name: it suggests the closest known names, or lists all if none is close."""
    names = sorted(known)
    near = difflib.get_close_matches(received, names, n=3, cutoff=0.5)
    offer = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
    return UsageError(f"unknown {kind}: received '{received}'; {offer}")
