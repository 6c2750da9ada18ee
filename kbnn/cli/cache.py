"""Caches results that take seconds to compute and change only with the installation.

kbnn ships its own results in `tables.json`, which `python benchmarks/listings.py` writes. If another package registers
something, or the source files differ, results are computed once and kept in the user's cache folder.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast

import kbnn
from kbnn import files
from kbnn.errors import KbnnError

TABLES = "tables.json"
Result = TypeVar("Result")


def cached(name: str, packages: Iterable[str], groups: Iterable[str], compute: Callable[[], Result]) -> Result:
    """The result of `compute` as JSON values, from the cache unless something that it depends on has changed.

    Args:
        name: name of the result.
        packages: packages whose source files it depends on.
        groups: groups of entry points that it depends on.
        compute: called if the result is not in the cache.
    """
    groups, packages = list(groups), list(packages)
    found = _shipped(name, packages, groups)
    if found is None:
        path = _folder() / f"{name}-{_key(packages, groups)}.json"
        found = _kept(path)
        if found is None:
            text = json.dumps(compute())
            # If the cache cannot be written, the result is computed every time.
            with contextlib.suppress(KbnnError):
                files.write(path, text)
            found = json.loads(text)
    return cast(Result, found)


def _kept(path: Path) -> object:
    """The result in the cache; None if there is none, or if it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    return None


def described(packages: Iterable[str], value: object) -> dict[str, object]:
    """An entry of `tables.json`: a result, and the names of the source files that it was computed from."""
    return {"sources": _names(packages), "value": value}


def _shipped(name: str, packages: list[str], groups: list[str]) -> object:
    """The shipped result; None if it was computed from other sources, or if another package registers something."""
    entries = [entry for group in groups for entry in importlib.metadata.entry_points(group=group)]
    if any((entry.value.partition(":")[0]).partition(".")[0] != "kbnn" for entry in entries):
        return None
    with contextlib.suppress(OSError, ValueError, KeyError):
        table = json.loads((Path(__file__).parent / TABLES).read_text())[name]
        if table == described(packages, table["value"]):
            return table["value"]
    return None


def _names(packages: Iterable[str]) -> list[str]:
    return [f"{package}/{path.name}" for package in packages for path in _sources(package)]


def _sources(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations or () if spec else ()
    return sorted(path for folder in folders for path in Path(folder).glob("*.py"))


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kbnn"


def _key(packages: Iterable[str], groups: Iterable[str]) -> str:
    parts = [kbnn.__version__]
    for path in (path for package in packages for path in _sources(package)):
        status = path.stat()
        parts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    for group in groups:
        for entry in importlib.metadata.entry_points(group=group):
            parts.append(f"{group} {entry.name} {entry.value} {entry.dist.version if entry.dist else ''}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
