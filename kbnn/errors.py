"""What can be expected to go wrong: each error is one line that says what, what was received and what to do."""

import difflib
from collections.abc import Iterable


class KbnnError(Exception):
    """The work failed, or a check fell short. The command line prints it as one line and exits with status 1."""

    exit_status = 1


class UsageError(KbnnError, ValueError):
    """What was asked for cannot be: an unknown name, a wrong value, a path of the wrong kind. Exit status 2."""

    exit_status = 2


def unknown(kind: str, received: str, known: Iterable[str]) -> UsageError:
    """An error for a name that is not registered; it offers the nearest ones, or all when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(received, names, n=3, cutoff=0.5)
    offer = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}"
    return UsageError(f"unknown {kind}: received '{received}'; {offer}")
