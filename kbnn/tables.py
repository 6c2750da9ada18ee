"""Renders results as tables: plain text in a terminal, HTML in a notebook."""

import contextvars
import html
import io
import re
import secrets
from collections.abc import Iterable, Sequence

from kbnn.printable import printable

# While a result is rendered as HTML: the tables that replace the marks in its text.
_TABLES: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("tables", default=None)
# Random, so that no text from a file contains one.
_MARK = f"\x1e{secrets.token_hex(8)}\x1e"


class Shown:
    """A result that prints as text, and that notebooks show as HTML with the same text and tables."""

    def _repr_html_(self) -> str:
        found: list[str] = []
        token = _TABLES.set(found)
        try:
            text = str(self)
        finally:
            _TABLES.reset(token)
        parts = re.split(f"{_MARK}(\\d+){_MARK}", text)
        return "".join(_paragraph(part) if k % 2 == 0 else found[int(part)] for k, part in enumerate(parts))


def _paragraph(text: str) -> str:
    text = text.strip("\n")
    return f'<pre style="white-space: pre-wrap; margin: .4em 0">{html.escape(text)}</pre>' if text else ""


def render(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> str:
    """Renders a table as aligned text without colours.

    Columns whose names start with `>` are right-aligned; the mark is dropped.
    """
    found = _TABLES.get()
    if found is not None:
        found.append(_html(columns, rows, title))
        return f"{_MARK}{len(found) - 1}{_MARK}"
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, title=title, title_justify="left", title_style="")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(rich.text.Text("" if cell is None else printable(cell)) for cell in row))
    out = io.StringIO()
    rich.console.Console(file=out, width=10_000, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def _html(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None) -> str:
    styles = [f"text-align: {'right' if column.startswith('>') else 'left'}" for column in columns]

    def line(kind: str, cells: Iterable[object]) -> str:
        texts = ("" if cell is None else html.escape(printable(cell)) for cell in cells)
        return "".join(f'<{kind} style="{style}">{text}</{kind}>' for style, text in zip(styles, texts, strict=True))

    caption = f'<caption style="text-align: left">{html.escape(title)}</caption>' if title else ""
    head = line("th", (column.removeprefix(">") for column in columns))
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def count(number: float, digits: int = 3) -> str:
    """Formats a count with a few digits and a unit prefix: 1234567 -> 1.23 M."""
    for unit, factor in (("", 1.0), (" k", 1e3), (" M", 1e6), (" G", 1e9)):
        text = f"{number / factor:.{digits}g}" if unit else f"{number:.0f}"
        # Rounding may carry into the next unit.
        if float(text) < 1000:
            return f"{text}{unit}"
    return f"{number / 1e9:,.0f} G"


def size(count: int) -> str:
    """Formats a number of bytes in decimal units: 23456 -> 23.5 kB."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.2f} MB"
