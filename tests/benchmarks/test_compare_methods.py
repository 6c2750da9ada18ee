"""The queue of runs: each row is trained and then measured; an interruption ends the queue, a failure does not."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import compare_methods
import pytest
import record

from kbnn.reproduction.ours import METHODS, RATES
from kbnn.training import Recipe


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


@pytest.mark.parametrize("status", [129, 130, 143])
def test_an_interrupted_command_ends_the_queue(status: int):
    with pytest.raises(SystemExit) as ended:
        compare_methods._succeeds([sys.executable, "-c", f"raise SystemExit({status})"])
    assert ended.value.code == 130


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


def test_the_chosen_rates_are_the_best_of_the_recorded_ones():
    recorded: dict[str, dict[float, float]] = {}
    for row in record.read("rates"):
        recorded.setdefault(row["method"], {})[float(row["learning_rate"])] = float(row["validation_top1"])
    complete = {method: found for method, found in recorded.items() if set(found) == set(RATES)}
    assert {method: METHODS[method].learning_rate for method in complete} == {
        method: max(found, key=lambda rate: found[rate]) for method, found in complete.items()
    }


def test_each_rate_is_tried_once_and_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    trained: list[tuple[str, float, int]] = []

    class Run:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        def history(self) -> list[dict[str, float]]:
            return [{"val_accuracy": 0.1, "loss": 2.0}, {"val_accuracy": 10 * self.rate, "loss": 1.0}]

    def train(recipe: Recipe, folder: Path, resume: bool) -> Run:
        trained.append((recipe.model.method, recipe.stage[0].learning_rate, recipe.epochs))
        return Run(recipe.stage[0].learning_rate)

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(compare_methods.training, "train", train)
    monkeypatch.setattr(sys, "argv", ["compare_methods.py", "runs/rates", "--choose-rates", "--methods", "bnn"])
    assert compare_methods.main() == 0
    assert compare_methods.main() == 0
    assert trained == [("bnn", rate, 3) for rate in RATES]
    assert [row["validation_top1"] for row in record.read("rates")] == ["0.0200", "0.0500", "0.1000"]
