"""Simulates the content of a disk after a power cut: everything synced, and an arbitrary part of the rest."""

import os
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Cut:
    """One moment of a training: the folder that a power cut would leave, and the epochs finished so far."""

    folder: Path
    finished: int


@dataclass
class Disk:
    """Watches `os.fsync` and `os.replace` under `root`, and copies to `images` what a power cut would leave then.

    A file's content is certain once the file was synced, a folder's names once the folder was. Anything else is present
    or absent, whole or cut short, at random.
    """

    root: Path
    images: Path
    seed: int
    finished: int = 0
    cuts: list[Cut] = field(default_factory=list)
    _contents: dict[int, bytes] = field(default_factory=dict)
    _names: dict[int, dict[str, tuple[int, bool]]] = field(default_factory=dict)
    # Kept open while the disk is watched, so that no inode number of a removed file is reused.
    _held: list[int] = field(default_factory=list)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        replace = os.replace
        self._random = random.Random(self.seed)  # noqa: S311

        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if not path.is_relative_to(self.root):
                return
            self._held.append(os.dup(descriptor))
            number = os.fstat(descriptor).st_ino
            if path.is_dir():
                self._names[number] = _listing(path)
            else:
                self._contents[number] = path.read_bytes()
            self._cut()

        def renamed(source: str, target: str) -> None:
            replace(source, target)
            if Path(target).is_relative_to(self.root):
                self._cut()

        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "replace", renamed)

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)

    def _cut(self) -> None:
        folder = self.images / str(len(self.cuts))
        folder.mkdir(parents=True)
        self._copy(self.root, self.root.stat().st_ino, folder)
        self.cuts.append(Cut(folder, self.finished))

    def _copy(self, current: Path | None, number: int, target: Path) -> None:
        """Writes the remains of a folder that is at `current` now, if it still exists."""
        certain = self._names.get(number, {})
        now = _listing(current) if current is not None else {}
        for name in sorted({*certain, *now}):
            entry = self._random.choice([certain.get(name), now.get(name)])
            if certain.get(name) == now.get(name):
                entry = now[name]
            if entry is None:
                continue
            inode, is_folder = entry
            path = current / name if current is not None and now.get(name) == entry else None
            if is_folder:
                (target / name).mkdir()
                self._copy(path, inode, target / name)
            else:
                (target / name).write_bytes(self._content(path, inode))

    def _content(self, path: Path | None, inode: int) -> bytes:
        if inode in self._contents:
            return self._contents[inode]
        written = b"" if path is None else path.read_bytes()
        return written[: self._random.randint(0, len(written))]


def _listing(folder: Path) -> dict[str, tuple[int, bool]]:
    found = {}
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        found[entry.name] = (status.st_ino, stat.S_ISDIR(status.st_mode))
    return found
