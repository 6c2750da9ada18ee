"""Finds the images in a folder, and counts what is left out."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kbnn import labels
from kbnn.errors import UsageError

# Files and folders that operating systems create.
_SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir")
_ROLES = {
    "train": ("train", "training", "trainset", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "valset"),
    "test": ("test", "testing", "tests", "testset", "tst", "eval", "evaluation"),
}
# What may follow these words without a space, as in `traindata`.
_SUFFIXES = ("set", "data", "images", "imgs", "pictures", "photos", "files")
_READ_ALREADY = "links to a folder that was already read"


@dataclass
class LeftOut:
    """How many files and folders were left out, by reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, count: int = 1) -> None:
        self.counts[reason] += count

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.counts.items()))


@dataclass(frozen=True)
class Layout:
    """The folder of each split; None for a split that has to be held out from the training images."""

    train: Path
    validation: Path | None = None
    test: Path | None = None


def folders(folder: Path, left_out: LeftOut) -> list[Path]:
    """The sub-folders (classes or splits), sorted by name; links to folders are followed.

    Raises:
        UsageError: a name is not UTF-8 or contains a line break, or a link makes two of them overlap.
    """
    found = _subfolders(folder, left_out)
    try:
        labels.check([path.name for path in found])
    except UsageError as error:
        raise UsageError(f"{error} (a folder in '{folder}')") from error
    _check_apart(folder, found)
    return found


def _check_apart(folder: Path, found: Sequence[Path]) -> None:
    """Raises UsageError if a link makes two sub-folders the same folder, or one a part of the other."""
    places: dict[Path, Path] = {}
    for path in found:
        other = places.setdefault(path.resolve(), path)
        if other is not path:
            raise UsageError(f"'{other.name}' and '{path.name}' in '{folder}' are links to the same folder: keep one")
    for place, path in places.items():
        around = next((places[parent] for parent in place.parents if parent in places), None)
        if around is not None:
            raise UsageError(f"'{path.name}' in '{folder}' is a link to a part of '{around.name}': remove the link")


def _subfolders(folder: Path, left_out: LeftOut) -> list[Path]:
    found = []
    for entry in _entries(folder):
        if _is_skipped(entry, left_out):
            continue
        if entry.is_symlink() and _contains(Path(entry.path).resolve(), folder.resolve()):
            left_out.add(_READ_ALREADY)
        elif entry.is_dir():
            found.append(Path(entry.path))
        else:
            left_out.add("outside of the class folders")
    return sorted(found)


def _contains(outer: Path, inner: Path) -> bool:
    return outer == inner or outer in inner.parents


def files(folder: Path, left_out: LeftOut, classes: Sequence[Path] = ()) -> list[Path]:
    """All files below a folder, sorted.

    Leaves out names that begin with a dot, the content of folders with such names, broken links, and links to folders
    that are read elsewhere: because they were already visited, or because they contain or are part of one of `classes`.
    """
    found: list[Path] = []
    waiting, visited = [folder], {folder.resolve()}
    taken = [path.resolve() for path in (folder, *classes)]
    while waiting:
        for entry in _entries(waiting.pop()):
            if _is_skipped(entry, left_out):
                continue
            path = Path(entry.path)
            if not entry.is_dir():
                found.append(path)
                continue
            target = path.resolve()
            is_link = entry.is_symlink()
            if target in visited or (is_link and any(_contains(x, target) or _contains(target, x) for x in taken)):
                left_out.add(_READ_ALREADY)
                continue
            visited.add(target)
            waiting.append(path)
    return sorted(found)


def layout(folder: Path, left_out: LeftOut) -> Layout:
    """Determines whether sub-folders are splits or classes.

    Raises:
        UsageError: there is no such folder, or its layout is ambiguous.
    """
    if not folder.is_dir():
        raise UsageError(f"no folder of images at '{folder}': give one with a sub-folder for each class")
    children = folders(folder, LeftOut())
    inner = {child: {each.name for each in _subfolders(child, LeftOut())} for child in children}
    splits: dict[str, list[Path]] = {}
    for child in children:
        role = _role(child.name)
        if role and inner[child]:
            splits.setdefault(role, []).append(child)
    if not splits:
        _check_not_splits(folder, children, inner)
        return Layout(folder)
    return _with_roles(folder, children, splits, left_out)


def _with_roles(folder: Path, children: list[Path], splits: dict[str, list[Path]], left_out: LeftOut) -> Layout:
    for role, found in splits.items():
        if len(found) > 1:
            raise UsageError(
                f"'{folder}' has {len(found)} folders of {role} images: '{found[0].name}' and '{found[1].name}'; "
                f"keep one, or merge them"
            )
    train, validation, test = (splits.get(role, [None])[0] for role in _ROLES)
    if train is None or (validation is None and test is None):
        present = " and ".join(f"'{found[0].name}'" for found in splits.values())
        wanted = "training" if train is None else "test or validation"
        bare = [child.name for child in children if child not in (train, validation, test) and _role(child.name)]
        unsorted = f" with a sub-folder for each class ('{bare[0]}' has none)" if bare else ""
        raise UsageError(
            f"'{folder}' has the split {present}, but no folder of {wanted} images{unsorted}: add one (named train, "
            f"val or test), or put the class folders directly into '{folder}'"
        )
    others = [child for child in children if child not in (train, validation, test)]
    if others:
        left_out.add("folders next to the splits", len(others))
    if test is None:
        return Layout(train, None, validation)
    return Layout(train, validation, test)


def _check_not_splits(folder: Path, children: list[Path], inner: dict[Path, set[str]]) -> None:
    """Raises UsageError if sub-folders share their sub-folders: they are probably splits with unknown names."""
    for k, first in enumerate(children):
        for second in children[:k]:
            common = inner[first] & inner[second]
            if common:
                some = ", ".join(sorted(common)[:3])
                raise UsageError(
                    f"'{second.name}' and '{first.name}' in '{folder}' have the same sub-folders ({some}): if they are "
                    f"splits, name them train, val and test; if they are classes, put their images directly into them"
                )


def _role(name: str) -> str | None:
    """`Train`, `seg_train`, `training-set`, `traindata`, `imagesTrain`: the split that a folder's name stands for."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[a-z]+", spaced.lower())
    words += [word.removesuffix(suffix) for word in words for suffix in _SUFFIXES if word.endswith(suffix)]
    roles = {role for role, known in _ROLES.items() for word in words if word in known}
    return roles.pop() if len(roles) == 1 else None


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"cannot read folder '{folder}': {error.strerror}; check its permissions") from error


def _is_skipped(entry: "os.DirEntry[str]", left_out: LeftOut) -> bool:
    if entry.name.startswith("."):
        left_out.add("hidden")
        return True
    if entry.name.lower() in _SYSTEM:
        left_out.add("of the operating system")
        return True
    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
        left_out.add("broken links")
        return True
    return False
