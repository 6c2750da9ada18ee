"""Files appear whole or not at all, and a folder can be kept to one process."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kbnn.errors import KbnnError, UsageError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write a file or a folder to, and renames it to `path` on success.

    When the block raises, the temporary is removed and what stood at `path` stays as it was.

    Raises:
        KbnnError: the disk is full, read-only or otherwise refuses the file.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        # The suffix is kept because Keras chooses a format by it.
        temporary = folder / target.name
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes one file by rename.

    Raises:
        KbnnError: as `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes the folder `path` and keeps it to this process within the block; no file in it says so.

    A process that ends, however it does, lets go. On a file system without locks nobody is kept out. Folders that
    were made and hold nothing in the end are taken away.

    Raises:
        UsageError: another process keeps it.
        KbnnError: it cannot be made.
    """
    folder = Path(path)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
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


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"another process is writing '{folder}': wait for it or stop it, or choose another output folder"
        ) from error


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _cannot_write(target: Path, error: OSError) -> KbnnError:
    return KbnnError(
        f"cannot write '{target}': {error.strerror or error}; nothing was changed there, "
        f"free space or choose another place"
    )
