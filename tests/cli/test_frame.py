"""What all commands share, as a process: help, usage errors, exit statuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from kbnn.cli import COMMANDS

KBNN = Path(sys.executable).with_name("kbnn")


def kbnn(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KBNN, *arguments], capture_output=True, text=True, timeout=300)


def test_help_lists_every_command():
    done = kbnn("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


def test_version():
    import kbnn as package

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
