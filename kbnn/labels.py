"""Checks class names, which label files store one per line."""

import unicodedata
from collections.abc import Sequence

from kbnn.errors import UsageError


def check(labels: Sequence[str], outputs: int | None = None) -> None:
    """Checks that class names can be stored one per line, and that their number is that of the network's classes.

    A network with one output has two classes: the output is the probability, or the logit, of the second one.

    Args:
        labels: the class names.
        outputs: number of the network's outputs, if known.

    Raises:
        UsageError: a name is not valid text, or contains a line break or another control character, or there are more
            or fewer names than classes.
    """
    for label in labels:
        reason = _reason(label)
        if reason:
            raise UsageError(f"class name {label!r} {reason}: rename the class")
    if outputs is not None and labels and len(labels) != max(outputs, 2):
        wanted = "two labels for its two classes" if outputs == 1 else "one label for each output"
        raise UsageError(
            f"the labels do not fit the network: received {len(labels)} labels ({_some(labels)}) for {outputs} "
            f"output{'' if outputs == 1 else 's'}, give {wanted}"
        )


def _reason(label: str) -> str | None:
    if not label.strip():
        return "is empty"
    try:
        label.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if len(label.splitlines()) > 1 or label.splitlines()[0] != label:
        return "has a line break"
    if any(unicodedata.category(character) == "Cc" for character in label):
        return "has a control character"
    return None


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")
