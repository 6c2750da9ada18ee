"""Text that comes from elsewhere (a file, a device, a folder), made safe to print and to open in a spreadsheet."""

import re

# Control characters, line and paragraph separators, surrogates, and the marks that reorder text.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_LINES = re.compile(_UNSAFE.pattern.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))
# Spreadsheets take a cell that starts so for a formula.
_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: object, *, lines: bool = False, longest: int | None = None) -> str:
    """Text in which control characters are written as escapes, so that a terminal shows them and does not obey them.

    Args:
        text: what to print.
        lines: keeps line feeds.
        longest: cuts the result to so many characters.

    Example:
        >>> printable("\\x1b[2J")
        '\\\\x1b[2J'
    """
    found = (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_escape, str(text))
    return found if longest is None or len(found) <= longest else f"{found[: longest - 1]}…"


def cell(value: object) -> object:
    """A CSV cell that no spreadsheet takes for a formula: text that starts with = + - @ gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if len(text) > 1 and _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
