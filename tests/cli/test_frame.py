"""What all commands share, as a process: help, usage errors, exit statuses."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import kbnn as package
from kbnn.cli import COMMANDS

KBNN = Path(sys.executable).with_name("kbnn")


def kbnn(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KBNN, *arguments], capture_output=True, text=True, timeout=300)


def test_help_lists_every_command():
    done = kbnn("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


def test_version():
    assert kbnn("--version").stdout == f"kbnn, version {package.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str):
    done = kbnn(name, "--help")
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout
    assert f"kbnn {name}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command: received 'trian'; did you mean train?"),
        (["--nothing"], "No such option '--nothing'"),
        (["train", "--epoch", "3"], "Did you mean '--epochs'?"),
        (["train", "--epochs", "0"], "Invalid value for '--epochs': 0"),
        (["evaluate"], "Missing argument 'MODEL'"),
    ],
    ids=["command", "option", "near option", "value", "argument"],
)
def test_usage_errors_are_one_line_and_status_2(arguments: list[str], message: str):
    done = kbnn(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_no_arguments_shows_the_help_on_stderr():
    done = kbnn()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == kbnn("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["convert", "FILE", "-o", "FILE"], "a .tflite file"),
        (["inspect", "FILE", "--html", "FILE"], "an HTML page"),
        (["evaluate", "FILE", "--html", "FILE"], "an HTML page"),
        (["benchmark", "FILE", "--picture", "FILE"], "an SVG file"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_a_file_of_another_kind_is_not_overwritten(arguments: list[str], kind: str, tmp_path: Path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    done = kbnn(*(each.replace("FILE", str(path)) for each in arguments))
    assert done.returncode == 2
    assert f"'{path}' exists and is not {kind}: choose another file to write" in done.stderr
    assert path.read_text() == "years of work"


EXAMPLE = next((Path(package.__file__).parent / "examples").glob("tiny-*.tflite"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["inspect", str(EXAMPLE), "--html", "FOLDER"], "it is a folder"),
        (["inspect", str(EXAMPLE), "--html", "FOLDER/" + 300 * "x"], "File name too long"),
        (["inspect", str(EXAMPLE), "--html", "/dev/full"], "it is a device, a pipe or a socket"),
        (["convert", "absent.keras", "-o", "FOLDER/file/x.tflite"], "'FOLDER/file' is not a folder"),
        (["benchmark", str(EXAMPLE), "--csv", "FOLDER"], "it is a folder"),
    ],
    ids=["folder", "long name", "device", "below a file", "csv"],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(arguments: list[str], reason: str, tmp_path: Path):
    (tmp_path / "file").touch()
    given = [each.replace("FOLDER", str(tmp_path)) for each in arguments]
    done = kbnn(*given)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"cannot write '{given[-1]}': {reason.replace('FOLDER', str(tmp_path))}" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["inspect", str(EXAMPLE), "--json"]])
def test_a_full_disk_behind_the_output_is_one_line(arguments: list[str]):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([KBNN, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr == (
        "error: cannot print the result: No space left on device; check the path, its permissions and the free space\n"
    )


def test_a_lost_terminal_does_not_change_the_exit_status():
    terminal, its_end = pty.openpty()
    os.close(terminal)
    try:
        done = subprocess.run([KBNN, "trian"], stdout=subprocess.PIPE, stderr=its_end, timeout=300)
    finally:
        os.close(its_end)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_terminal_without_unicode_shows_what_it_can():
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([KBNN, "inspect", EXAMPLE], env=environment, capture_output=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"binary convolutions: 4" in done.stdout
