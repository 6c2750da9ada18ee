"""A self-contained HTML page of headings, tables and pictures, in the reader's preferred light or dark theme."""

import importlib.resources
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from kbnn import files
from kbnn.analysis.pictures import Picture


@dataclass(frozen=True)
class Table:
    """Cells as text; columns whose name starts with `>` are right-aligned."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, followed by paragraphs, tables and pictures."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    summary: str
    sections: Sequence[Section] = field(default_factory=tuple)

    def html(self) -> str:
        """The page as HTML without external references."""
        import jinja2

        template = importlib.resources.files("kbnn.analysis").joinpath("page.html.j2").read_text()
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(template).render(page=self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the page atomically."""
        files.write(path, self.html())
