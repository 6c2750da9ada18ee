"""Writes files atomically, without overwriting files of other processes or leaving temporary files behind."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from kbnn.errors import KbnnError, UsageError
from kbnn.printable import cell

_MARK = "kbnn-"
_SCRATCH = "kbnn-scratch-"
# The random suffix that `tempfile` appends.
_SUFFIX = "[a-z0-9_]{8}"
# The earliest date that ZIP archives, and so .keras files, can store.
_EARLIEST = 315_532_800


def suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a file's name in lower case, such as ".keras", by which formats are told apart."""
    return Path(path).suffix.lower()


def component(name: str) -> str:
    """A name as one component of a path: "a/../b" becomes "a-..-b"."""
    return re.sub(r"[^\w.+-]+", "-", name)


def unwritable(path: str | os.PathLike[str]) -> str:
    """Why a file cannot be written, as far as that can be told without writing; empty if it can."""
    target = Path(path)
    try:
        if target.is_dir():
            return "it is a folder"
        if _is_special(target):
            return "it is a device, a pipe or a socket"
        folder = next(parent for parent in target.absolute().parents if parent.exists())
    except OSError as error:
        return error.strerror or str(error)
    if not folder.is_dir():
        return f"'{folder}' is not a folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"no permission to write in '{folder}', or it is read-only"
    return ""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `path` for writing a file or a folder, and renames it to `path` on success.

    The content is flushed to disk before the rename, and the rename before the block ends. If the block raises, the
    temporary file is removed and `path` keeps its old content. Temporary files of killed processes are removed.

    Raises:
        UsageError: `path` is a device, a pipe or a socket, which would be replaced by a file.
        KbnnError: the disk is full or read-only, or the file cannot be written for another reason.
    """
    target = Path(path)
    _check_ordinary(target)
    prefix = f".{target.name}.{_MARK}"
    try:
        _make_folder(target.parent)
        _sweep(target.parent, re.escape(prefix))
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise _cannot_write(target, error) from error
    with _marked_as_used(folder):
        try:
            # Keras chooses the format by the suffix, so the file keeps its name.
            temporary = folder / target.name
            yield temporary
            _flush(temporary)
            _rename(temporary, target)
            _flush_entry(target.parent)
        except OSError as error:
            raise _cannot_write(target, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _rename(source: Path, target: Path) -> None:
    """Renames a file or a folder; an existing folder is moved out of the way first, as only empty ones are replaced."""
    if not (source.is_dir() and target.is_dir() and not target.is_symlink()):
        source.replace(target)
        return
    old = source.with_name(f"{source.name}.old")
    target.rename(old)
    try:
        source.rename(target)
    except BaseException:
        old.rename(target)
        raise


def write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes a file atomically.

    Raises:
        KbnnError: as for `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def is_intact(path: str | os.PathLike[str], sha256: str) -> bool:
    """Whether a file exists and its content has this SHA-256 hash."""
    path = Path(path)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


@contextlib.contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """Yields an empty temporary folder and removes it at the end, together with those of killed processes.

    Args:
        parent: where to make it; by default the system's folder for temporary files.

    Raises:
        KbnnError: there is no space for temporary files.
    """
    try:
        place = Path(tempfile.gettempdir()) if parent is None else parent
        _sweep(place, re.escape(_SCRATCH))
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=place))
    except OSError as error:
        raise _no_scratch(error) from error
    with _marked_as_used(folder):
        try:
            yield folder
        except OSError as error:
            if _is_full(error):
                raise _no_scratch(error) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def fresh_folder(path: str | os.PathLike[str]) -> Path:
    """`path` if it does not exist or is an empty folder; otherwise the first free one of `path-2`, `path-3`, ..."""
    first = Path(path)
    candidate, number = first, 1
    while candidate.exists() and not (candidate.is_dir() and not any(candidate.iterdir())):
        number += 1
        candidate = first.with_name(f"{first.name}-{number}")
    return candidate


def discard(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Removes files and folders that the caller created in `folder`, and `folder` itself if it is empty afterwards.

    Args:
        folder: the folder; all other members stay.
        names: names of the direct members to remove, with their content.
    """
    root = Path(folder)
    for name in names:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        root.rmdir()


@contextlib.contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[None]:
    """Creates the folder `path` and locks it for this process within the block, without a lock file.

    The lock ends when the process ends, in any way. On file systems without locks it has no effect. Folders that were
    created and are still empty at the end are removed.

    Raises:
        UsageError: another process holds the lock.
        KbnnError: the folder cannot be created.
    """
    folder = Path(path)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        _make_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        with contextlib.suppress(OSError):
            _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()


def append_rows(path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]], *, widen: bool = False) -> None:
    """Appends rows to a CSV file. Several processes may do so at the same time without losing or mixing rows.

    Args:
        path: the file; if it does not exist, it is created with a header line.
        rows: cells by column, in the order of the columns.
        widen: rewrite the file if a row has new columns, instead of raising an error.

    Raises:
        UsageError: the file has other columns.
        KbnnError: the file cannot be written.
    """
    target = Path(path)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target) as file:
            # Spreadsheets write a byte order mark.
            kept = file.read().removeprefix("\ufeff")
            header = next(csv.reader(io.StringIO(kept)), [])
            if header and widen and set(columns) - set(header):
                write_rows(target, [*_read_rows(kept), *rows])
                return
            if header and not (set(columns) <= set(header) if widen else columns == header):
                raise UsageError(f"'{target}' has other columns than the new rows: choose another file")
            file.write(_ending(kept) + _csv(header or columns, rows, not header))
            file.flush()
            os.fsync(file.fileno())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"'{target}' is not a CSV file in UTF-8 ({error}): choose another file") from error
    except OSError as error:
        raise _cannot_write(target, error) from error


def _read_rows(text: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(text))
    found = []
    for row in rows:
        if None in row:
            raise csv.Error(f"line {rows.line_num} has more cells than the header")
        found.append(row)
    return found


def _ending(text: str) -> str:
    """Ends an incomplete line of a killed process, so that the next row starts on a new line."""
    if not text or (text.endswith("\n") and text.count('"') % 2 == 0):
        return ""
    return '"\n' if text.count('"') % 2 else "\n"


def write_rows(path: str | os.PathLike[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Writes a CSV file atomically; where a row has no value for a column, its cell is empty.

    Raises:
        KbnnError: as for `replacing`.
    """
    write(path, _csv(list(dict.fromkeys(column for row in rows for column in row)), rows, True))


def check_clock() -> None:
    """Raises KbnnError if the clock is before 1980, a date that ZIP archives, such as .keras files, cannot store."""
    now = time.time()
    if now < _EARLIEST:
        date = time.strftime("%Y-%m-%d", time.gmtime(now))
        raise KbnnError(f"the computer's clock is wrong: received {date}, set the date")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Opens a file for reading and appending, and locks it against other processes that do the same."""
    while True:
        with path.open("a+", newline="", encoding="utf-8") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            # Another process may have replaced the file while this one waited.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.seek(0)
                yield file
                return


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, object]], with_header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if with_header:
        writer.writeheader()
    # Names of files, folders and devices must not turn into formulas in a spreadsheet.
    writer.writerows({column: cell(value) for column, value in row.items()} for row in rows)
    return text.getvalue()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"another process is writing '{folder}': wait for it or stop it, or choose another output folder"
        ) from error


@contextlib.contextmanager
def _marked_as_used(folder: Path) -> Iterator[None]:
    """Locks a temporary folder to show other processes that it is in use."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


# Seconds after which an unlocked temporary folder counts as a leftover; its owner locks it just after creating it.
_GRACE = 60.0


def is_leftover(path: Path) -> bool:
    """Whether a path is a temporary folder of `replacing`."""
    return re.fullmatch(rf"\..+\.{_MARK}{_SUFFIX}", path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of killed processes from a folder that this process holds."""
    if folder.is_dir():
        _sweep(folder, rf"\..+\.{_MARK}", grace=-1.0)


def _sweep(parent: Path, prefix: str, grace: float = _GRACE) -> None:
    """Removes temporary folders that killed processes of this user left; `prefix` is a regular expression."""
    leftover = re.compile(f"{prefix}{_SUFFIX}")
    with os.scandir(parent) as entries:
        candidates = [entry for entry in entries if leftover.fullmatch(entry.name)]
    for entry in candidates:
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            is_ours = entry.is_dir(follow_symlinks=False) and status.st_uid == os.geteuid()
            if is_ours and abs(time.time() - status.st_mtime) > grace and not _is_locked(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)


def _is_special(target: Path) -> bool:
    """Whether a path exists and is neither a file nor a folder, or is a name that the system uses."""
    return os.path.realpath(target.parent) == "/dev" or (
        target.exists() and not target.is_file() and not target.is_dir()
    )


def _check_ordinary(target: Path) -> None:
    if _is_special(target):
        raise UsageError(f"cannot write '{target}': it is a device, a pipe or a socket; choose another place")


def _make_folder(path: Path) -> None:
    """Creates a folder and its missing parents, and flushes their names to disk."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _flush_entry(path.parent)


def _is_locked(path: str) -> bool:
    """Whether a process holds the lock of a folder; also True if locks are not supported there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _flush(path: Path) -> None:
    """Flushes a file, or all files of a folder, to disk."""
    if not path.is_dir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return
    for member in path.iterdir():
        _flush(member)
    _flush_entry(path)


def _flush_entry(folder: Path) -> None:
    """Flushes a folder's list of names to disk, if the file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _no_scratch(error: OSError) -> KbnnError:
    place = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108
    return KbnnError(
        f"cannot write temporary files in '{place}': {error.strerror or error}; free space there, or set TMPDIR to "
        f"another folder"
    )


def _cannot_write(target: Path, error: OSError) -> KbnnError:
    return KbnnError(
        f"cannot write '{target}': {error.strerror or error}; nothing was changed there, "
        f"free disk space or choose another path"
    )
