"""The queue of runs: each row is trained and then measured; an interruption ends the queue, a failure does not."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import compare_methods
import pytest


def test_each_row_is_trained_and_then_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    commands: list[list[str]] = []

    def succeeds(command: list[str]) -> bool:
        commands.append(command[1:])
        return "irnet" not in command

    monkeypatch.setattr(compare_methods, "_succeeds", succeeds)
    monkeypatch.setattr(sys, "argv", ["", "runs/r", "--epochs", "3", "--seeds", "2", "--methods", "irnet", "xnor"])
    assert compare_methods.main() == 1
    failed, trained, measured = commands
    assert failed[:4] == ["reproduce", "cifar10-resnet20", "--only", "irnet"]
    assert trained[:6] == ["reproduce", "cifar10-resnet20", "--only", "xnor", "--epochs", "3"]
    assert measured[0].endswith("trained.py")
    assert measured[1:] == ["runs/r/xnor-seed0", "runs/r/xnor-seed1"]
    assert "failed: irnet" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "succeeds"), [(0, True), (1, False)])
def test_a_command_succeeds_by_its_status(status: int, succeeds: bool):
    assert compare_methods._succeeds([sys.executable, "-c", f"raise SystemExit({status})"]) is succeeds


@pytest.mark.parametrize("status", [130, 143])
def test_an_interrupted_command_ends_the_queue(status: int):
    with pytest.raises(SystemExit) as ended:
        compare_methods._succeeds([sys.executable, "-c", f"raise SystemExit({status})"])
    assert ended.value.code == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_command_may_save_before_it_stops(number: signal.Signals, tmp_path: Path):
    saves = """
import os, pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path(sys.argv[2]).write_text("saved")
    sys.exit(130)
signal.signal(int(sys.argv[1]), save)
part = pathlib.Path(sys.argv[3] + ".part")
part.write_text(str(os.getpid()))
part.rename(sys.argv[3])
time.sleep(60)
"""
    saved, begun = tmp_path / "saved", tmp_path / "begun"

    def stop() -> None:
        while not begun.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        if number == signal.SIGINT:
            # A terminal sends the signal to the command, too.
            os.kill(int(begun.read_text()), number)

    threading.Thread(target=stop).start()
    with pytest.raises(SystemExit):
        compare_methods._succeeds([sys.executable, "-c", saves, str(int(number)), str(saved), str(begun)])
    assert saved.read_text() == "saved"
