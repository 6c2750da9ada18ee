"""Files appear whole or not at all."""

import os
import shutil
import subprocess
import sys

import pytest

from kbnn import files
from kbnn.errors import KbnnError, UsageError


def test_replaces_the_old_file(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write(path, "one")
    files.write(path, b"two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failing_block_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    files.write(path, "one")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(path)
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path):
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("in the middle")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(KbnnError, match="cannot write"), files.replacing(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_midway_leaves_nothing(tmp_path):
    code = (
        "import resource, sys; from kbnn import files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "files.write(sys.argv[1], b'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.bin")], capture_output=True, text=True)
    assert "KbnnError: cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_full_disk(tmp_path):
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


def test_a_place_that_cannot_be_written():
    with pytest.raises(KbnnError, match=r"cannot write '/proc/kbnn/a\.txt'"):
        files.write("/proc/kbnn/a.txt", "x")


def test_a_folder_is_held_by_one_and_let_go(tmp_path):
    folder = tmp_path / "new" / "run"
    refused = pytest.raises(UsageError, match=r"another process is writing '.*run': wait for it or stop it")
    with files.held(folder), refused, files.held(folder):
        pass
    with files.held(folder):
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_stays(tmp_path):
    with files.held(tmp_path / "new" / "run"):
        (tmp_path / "new" / "notes.txt").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["notes.txt"]


def test_a_process_that_is_killed_lets_go(tmp_path):
    hold = """
import sys, time
from kbnn import files
with files.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another process"), files.held(tmp_path):
            pass
        process.kill()
    with files.held(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KbnnError, match="cannot write"), files.held(tmp_path / "file"):
        pass
