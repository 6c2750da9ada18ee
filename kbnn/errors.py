"""Errors for expected failures. Each message is one line: what failed, what was received, and what to do."""

import difflib
from collections.abc import Iterable

from kbnn.printable import printable


class KbnnError(Exception):
    """An operation or a check failed. The command line prints the message as one line and exits with status 1.

    Messages quote names from files and folders, in which control characters are replaced with escapes.

    Attributes:
        parameter: name of the Python parameter that changes the outcome, or None. If the command has an option of that
            name, the command line adds it to the message.
    """

    exit_status = 1
    parameter: str | None = None

    def __init__(self, message: str = "", *, parameter: str | None = None) -> None:
        super().__init__(printable(message, lines=True))
        self.parameter = parameter or self.parameter


class UsageError(KbnnError, ValueError):
    """The request is invalid: an unknown name, a wrong value, or a path of the wrong kind. Exit status 2."""

    exit_status = 2


# Longer lists of names are cut.
_LISTED = 40


def unknown(kind: str, received: object, known: Iterable[str]) -> UsageError:
    """The error for an unknown name: it suggests the closest known names, or lists them if none is close."""
    names = sorted(known)
    near = difflib.get_close_matches(str(received), names, n=3, cutoff=0.5)
    if near:
        offer = f"did you mean {' or '.join(near)}?"
    elif len(names) <= _LISTED:
        offer = f"choose one of {', '.join(names)}"
    else:
        offer = f"choose one of the {len(names)} names, such as {', '.join(names[:3])}"
    return UsageError(f"unknown {kind}: received '{received}'; {offer}")
