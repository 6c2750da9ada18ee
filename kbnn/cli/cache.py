"""Results that take seconds to compute and change only with the installation, kept in the user's cache folder."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import kbnn
from kbnn import files
from kbnn.errors import KbnnError


def cached(name: str, packages: Iterable[str], groups: Iterable[str], compute: Callable[[], Any]) -> Any:
    """The result of `compute`, plain JSON values, from the cache while nothing that it depends on changed.

    Args:
        name: of the result.
        packages: whose source files it depends on.
        groups: entry points that it depends on.
        compute: called when the cache has no result.
    """
    path = _folder() / f"{name}-{_key(packages, groups)}.json"
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    found = compute()
    # Without a place to write, it is computed every time.
    with contextlib.suppress(KbnnError):
        files.write(path, json.dumps(found))
    return json.loads(json.dumps(found))


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kbnn"


def _key(packages: Iterable[str], groups: Iterable[str]) -> str:
    parts = [kbnn.__version__]
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).glob("*.py")):
                status = path.stat()
                parts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    for group in groups:
        for entry in importlib.metadata.entry_points(group=group):
            parts.append(f"{group} {entry.name} {entry.value} {entry.dist.version if entry.dist else ''}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
