"""The queue of runs: each row is trained and then measured, a failure does not end it, an interruption does."""

import sys

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
    assert failed[:4] == ["reproduce", "cifar10-resnet20", "--rows", "irnet"]
    assert trained[:6] == ["reproduce", "cifar10-resnet20", "--rows", "xnor", "--epochs", "3"]
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
