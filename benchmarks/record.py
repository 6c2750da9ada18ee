"""Reads and writes rows of `results/`: figures with their command, commit, seed, date and machine."""

import csv
import datetime
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kbnn import files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PROVENANCE = ("command", "commit", "seed", "date", "machine")

Row = Mapping[str, object]


def append(name: str, rows: Sequence[Row], seed: int | None = None) -> Path:
    """Adds rows with their provenance to `results/NAME.csv`; several processes may append to one file."""
    path = RESULTS / f"{name}.csv"
    stamp = provenance(seed)
    files.append_rows(path, [{**row, **stamp} for row in rows], widen=True)
    return path


def replace(name: str, rows: Sequence[Row], seed: int | None = None, kept: Sequence[Row] = ()) -> Path:
    """Writes `results/NAME.csv`: the kept rows unchanged, then the new rows with their provenance."""
    stamp = provenance(seed)
    path = RESULTS / f"{name}.csv"
    files.write_rows(path, [*kept, *({**row, **stamp} for row in rows)])
    return path


def update(name: str, rows: Sequence[Row], seed: int | None = None, **replaced: object) -> Path:
    """Writes `results/NAME.csv`, with new rows instead of those that have these values; other rows stay."""
    return replace(name, rows, seed, kept=[row for row in read(name) if not _has(row, replaced)])


def read(name: str) -> list[dict[str, str]]:
    """The rows of `results/NAME.csv`; an empty list if the file does not exist."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_measured(name: str, **wanted: object) -> bool:
    """Whether `results/NAME.csv` has a row with these values."""
    return any(_has(row, wanted) for row in read(name))


def _has(row: Mapping[str, str], values: Row) -> bool:
    return all(row.get(key) == str(value) for key, value in values.items())


def filled(page: str, name: str, content: str) -> str:
    """A page with `content` between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, instead of what is there.

    Raises:
        ValueError: the page does not have each of the two marks once, in this order.
    """
    marks = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    if [page.count(mark) for mark in marks] != [1, 1] or page.index(marks[0]) > page.index(marks[1]):
        raise ValueError(f"the page needs one pair of marks '{name}: begin' and '{name}: end', each on its own line")
    before, rest = page.split(marks[0])
    return f"{before}{marks[0]}{content}{marks[1]}{rest.split(marks[1])[1]}"


def provenance(seed: int | None = None) -> dict[str, object]:
    """The columns that make a row reproducible: command, commit, seed, date and machine."""
    return {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], ROOT), *map(_portable, sys.argv[1:])]),
        "commit": commit(),
        "seed": "" if seed is None else seed,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
    }


def _portable(argument: str) -> str:
    """An argument, such as `PATH` or `NAME=PATH`, with absolute paths within the repository, or else in runs/."""
    name, equals, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return argument
    inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path("runs", path.name)
    return f"{name}{equals}{inside}"


def commit() -> str:
    """The current commit, with a + if the sources have changed since."""
    head = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    return head + "+" * bool(changed)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def machine() -> str:
    """Processor, the cores that this process may use, architecture and system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {platform.machine()} {platform.system()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
