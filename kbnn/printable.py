"""Makes text from files, devices and folders safe to print and to open in a spreadsheet."""

import re

# Control characters, line and paragraph separators, surrogates, and the marks that reorder text.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_LINES = re.compile(_UNSAFE.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))
# Spreadsheets interpret cells that start like this as formulas.
_FORMULA = re.compile(r"[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: object, *, lines: bool = False, longest: int | None = None) -> str:
    """Replaces control characters with escapes, so that a terminal shows them instead of executing them.

    Args:
        text: the text to print.
        lines: keep line feeds.
        longest: maximum length of the result; longer text is cut.

    Example:
        >>> printable("\\x1b[2J")
        '\\\\x1b[2J'
    """
    found = (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escape, str(text))
    return found if longest is None or len(found) <= longest else f"{found[: longest - 1]}…"


def cell(value: object) -> object:
    """A CSV cell that is not interpreted as a formula.

    Text that starts with = + - @ (or their full-width forms) is prefixed with an apostrophe.

    Example:
        >>> cell("=1+1")
        "'=1+1"
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if len(text) > 1 and _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
