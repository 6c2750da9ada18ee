"""Tables as plain text, for results that people read."""

import io
from collections.abc import Iterable, Sequence

from kbnn.printable import printable


def render(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> str:
    """A table as aligned text without colours.

    A column name that starts with `>` is right-aligned (the mark is dropped).
    """
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


def size(count: int) -> str:
    """Bytes for people, in decimal units: 23456 -> 23.5 kB."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.2f} MB"
