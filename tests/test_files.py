"""Files are written completely or not at all, foreign files are kept, and no temporary files are left."""

import csv
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kbnn import files
from kbnn.errors import KbnnError, UsageError


def test_a_file_is_intact_if_it_has_its_hash(tmp_path: Path):
    """The SHA-256 of "abc" is the first example of FIPS 180-2."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abd")
    assert [files.is_intact(tmp_path / name, digest) for name in "abc"] == [True, False, False]


def test_replaces_the_old_file(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    files.write(path, "one")
    files.write(path, b"two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_block_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    files.write(path, "one")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(path)
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("in the middle")


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path):
    with pytest.raises(KbnnError, match="cannot write"), files.replacing(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path):
    code = (
        "import resource, sys; from kbnn import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "files.write(sys.argv[1], b'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.bin")], capture_output=True, text=True)
    assert "KbnnError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path: Path):
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        files.write(disk / "small", b"kept")
        with pytest.raises(KbnnError, match="No space left on device; nothing was changed there"):
            files.write(disk / "small", b"x" * 200_000)
        assert (disk / "small").read_bytes() == b"kept"
        assert [path.name for path in disk.iterdir()] == ["small"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_path_that_cannot_be_written():
    with pytest.raises(KbnnError, match=r"cannot write '/proc/kbnn/a\.txt'"):
        files.write("/proc/kbnn/a.txt", "x")


def test_one_process_at_a_time_holds_a_folder(tmp_path: Path):
    folder = tmp_path / "new" / "run"
    refused = pytest.raises(UsageError, match=r"another process is writing '.*run': wait for it or stop it")
    with files.held(folder), refused, files.held(folder):
        pass
    with files.held(folder):
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_held_folder_with_content_stays(tmp_path: Path):
    with files.held(tmp_path / "new" / "run"):
        (tmp_path / "new" / "notes.txt").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["notes.txt"]


def test_a_killed_process_releases_its_folder(tmp_path: Path):
    hold = """
import sys, time
from kbnn import files
with files.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another process"), files.held(tmp_path):
            pass
        process.kill()
    with files.held(tmp_path):
        pass


def test_a_folder_that_cannot_be_created(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(KbnnError, match="cannot write"), files.held(tmp_path / "file"):
        pass


def test_a_folder_is_replaced_whole(tmp_path: Path):
    with files.replacing(tmp_path / "saved") as temporary:
        (temporary / "variables").mkdir(parents=True)
        (temporary / "variables" / "data").write_text("x")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "saved",
        "saved/variables",
        "saved/variables/data",
    ]


KILLED = """
import os, signal, sys
from kbnn import files
with files.replacing(sys.argv[1]) as one, files.scratch() as two:
    one.write_text("half")
    (two / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_with_content_is_replaced(tmp_path: Path):
    for content in ("old", "new"):
        with files.replacing(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files.write(tmp_path / "folder" / "old", "old")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == "folder" and target == tmp_path / "folder":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KbnnError, match="Input/output error"), files.replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
    assert (tmp_path / "folder" / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    target = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    left = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(left) == 2
    mine = [tmp_path / ".a.txt.kbnn-notes", tmp_path / "kbnn-scratch-of-mine", tmp_path / ".b.txt.kbnn-abcdefgh"]
    for path in [*left, *mine]:
        path.mkdir(exist_ok=True)
        os.utime(path, (0, time.time() - 3600))
    with files.scratch():
        files.write(target, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([target, *mine])


def test_temporary_files_in_use_stay(tmp_path: Path):
    with files.replacing(tmp_path / "a.txt") as first:
        first.write_text("one")
        os.utime(first.parent, (0, 0))
        files.write(tmp_path / "a.txt", "two")
        assert first.read_text() == "one"
    assert (tmp_path / "a.txt").read_text() == "one"


def test_leftovers_in_another_folder_are_removed(tmp_path: Path):
    with files.scratch(tmp_path) as folder:
        assert folder.parent == tmp_path
        left = folder.with_name(f"{folder.name[:-8]}00000000")
        left.mkdir()
        os.utime(left, (0, 0))
        with files.scratch(tmp_path) as other:
            assert {path.name for path in tmp_path.iterdir()} == {folder.name, other.name}
    assert list(tmp_path.iterdir()) == []


def test_no_space_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(KbnnError, match=r"cannot write temporary files in '.*absent': No such .* or set TMPDIR"):
        files.scratch().__enter__()


def test_a_fresh_folder_does_not_exist_or_is_empty(tmp_path: Path):
    assert files.fresh_folder(tmp_path / "demo") == tmp_path / "demo"
    assert files.fresh_folder(tmp_path) == tmp_path
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "notes.txt").touch()
    (tmp_path / "demo-2").touch()
    assert files.fresh_folder(tmp_path / "demo") == tmp_path / "demo-3"


def test_only_named_members_are_discarded(tmp_path: Path):
    run = tmp_path / "run"
    (run / "logs" / "train").mkdir(parents=True)
    for name in ("config.toml", "notes.txt", "logs/train/events"):
        (run / name).touch()
    files.discard(run, ["config.toml", "logs", "absent"])
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    files.discard(run, ["notes.txt"])
    assert not run.exists()


def test_a_linked_folder_is_not_emptied(tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "logs").symlink_to(tmp_path / "precious")
    files.discard(tmp_path / "run", ["logs"])
    assert (tmp_path / "precious" / "a").exists()


APPEND = """
import sys
from kbnn import files
for k in range(25):
    files.append_rows(sys.argv[1], [{"process": sys.argv[2], "row": k}])
"""


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_processes_that_append_rows_lose_none(tmp_path: Path):
    path = tmp_path / "rows.csv"
    processes = [subprocess.Popen([sys.executable, "-c", APPEND, path, str(k)]) for k in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    rows = [(int(row["process"]), int(row["row"])) for row in read_rows(path)]
    assert sorted(rows) == [(process, row) for process in range(4) for row in range(25)]


def test_rows_start_on_a_new_line(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2")
    files.append_rows(path, [{"a": 3, "b": 4}])
    assert path.read_text() == "a,b\n1,2\n3,4\n"


def test_rows_do_not_end_up_in_an_unfinished_cell(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"2, 3')
    files.append_rows(path, [{"a": 3, "b": 4}])
    assert [list(row.values()) for row in read_rows(path)] == [["1", "2, 3"], ["3", "4"]]


def test_rows_of_a_spreadsheet(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    files.append_rows(path, [{"a": 3, "b": 4}])
    assert path.read_bytes() == b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4\n"
    files.append_rows(path, [{"c": 5}], widen=True)
    assert [list(row.values()) for row in read_rows(path)] == [["1", "2", ""], ["3", "4", ""], ["", "", "5"]]


@pytest.mark.parametrize(
    "content",
    ["näme\n1\n".encode("latin-1"), b"a\n" + 200_000 * b"x" + b"\n", b"a\n1,2\n"],
    ids=["encoding", "cell", "cells"],
)
def test_files_that_are_no_tables_are_kept(content: bytes, tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a CSV file in UTF-8"):
        files.append_rows(path, [{"b": 1}], widen=True)
    assert path.read_bytes() == content


def test_pipes_and_devices_are_not_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "linked").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "linked", Path("/dev/null"), Path("/dev/kbnn-new")):
        with pytest.raises(UsageError, match="it is a device, a pipe or a socket"):
            files.write(path, b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "linked").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linked", "pipe"]


def test_rows_with_other_columns(tmp_path: Path):
    path = tmp_path / "rows.csv"
    files.append_rows(path, [{"a": 1, "b": 2}])
    with pytest.raises(UsageError, match="has other columns"):
        files.append_rows(path, [{"a": 1, "c": 2}])
    files.append_rows(path, [{"c": 3}], widen=True)
    files.append_rows(path, [{"a": 4}], widen=True)
    assert [list(row.values()) for row in read_rows(path)] == [["1", "2", ""], ["", "", "3"], ["4", "", ""]]


def test_a_clock_before_1980(monkeypatch: pytest.MonkeyPatch):
    files.check_clock()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(KbnnError, match="clock is wrong: received 1970-01-01, set the date"):
        files.check_clock()
