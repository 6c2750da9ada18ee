"""`kbnn train` and `kbnn evaluate` as processes: killed, interrupted, refused."""

import contextlib
import csv
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kbnn import models
from kbnn.cli import main
from kbnn.training import Run

KBNN = Path(sys.executable).with_name("kbnn")

SMALL = ("train", "--model", "tiny", "--dataset", "digits", "--batch", "256", "--set", "model.options.width=0.25")
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

pytestmark = pytest.mark.slow


def kbnn(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KBNN, *arguments], capture_output=True, text=True, timeout=300, **{"env": ENVIRONMENT, **kwargs}
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [KBNN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=with_usual_signals,
    )


def with_usual_signals() -> None:
    """Ends what the test process may have inherited from nohup, or from the background of a shell."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start_in_terminal(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process, and the file whose closing closes its terminal."""
    terminal, its_end = pty.openpty()
    os.set_blocking(terminal, False)

    def take() -> None:
        with_usual_signals()
        os.setsid()
        fcntl.ioctl(its_end, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [KBNN, *arguments], stdin=its_end, stdout=its_end, stderr=its_end, env=ENVIRONMENT, preexec_fn=take
    )
    os.close(its_end)
    return process, terminal


def history(run: Path) -> list[dict[str, str]]:
    path = run / "history.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def wait_for_epoch(
    process: subprocess.Popen[str] | subprocess.Popen[bytes], run: Path, epoch: int, terminal: int | None = None
) -> None:
    for _ in range(12_000):
        if len(history(run)) >= epoch:
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        if terminal is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(terminal, 65536)
        time.sleep(0.02)
    raise AssertionError(f"epoch {epoch} was not reached")


def test_trained_weights_start_a_run_on_photos(tmp_path: Path):
    """The network, its options and the size of its images come from the weights."""
    generator = np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for place in range(24):
            pixels = generator.integers(100 * k, 100 * k + 100, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{place}.png")
    arguments = ("train", "--weights", "resnet20-bnn-cifar10", "--data", "photos", "--epochs", "1", "-o", "run")
    done = kbnn(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resnet20 (bnn), input 32x32x3" in done.stderr
    kernel = Run.open(tmp_path / "run").model().get_layer("stem_conv").kernel.numpy()
    trained = models.build("resnet20", weights="cifar10").get_layer("stem_conv").kernel.numpy()
    # A few steps at 0.001.
    assert 0 < np.abs(kernel - trained).max() < 0.05
    refused = kbnn("train", "--weights", "resnet20-bnn-cifar10", "--dataset", "digits", "-o", "grey", cwd=tmp_path)
    assert (refused.returncode, "give images with 3 channels" in refused.stderr) == (2, True)
    assert not (tmp_path / "grey").exists()


def test_killed_and_interrupted_runs_resume_exactly(tmp_path: Path):
    arguments = (*SMALL, "--epochs", "8")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = kbnn(*arguments, "-o", str(whole), "--json")
    assert done.returncode == 0, done.stderr
    assert "epoch 8/8" in done.stderr
    reported = json.loads(done.stdout)
    assert (reported["epochs"], reported["samples"], reported["paper"]) == (8, 360, None)

    process = start(*arguments, "-o", str(parts))
    wait_for_epoch(process, parts, 2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = start("train", "-o", str(parts), "--resume")
    wait_for_epoch(process, parts, 4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("error: stopped by SIGINT after step ")
    assert "Traceback" not in errors
    assert 4 <= len(history(parts)) < 8

    # Closing the terminal sends SIGHUP, and then nothing can be printed.
    process, terminal = start_in_terminal("train", "-o", str(parts), "--resume")
    wait_for_epoch(process, parts, 5, terminal)
    os.close(terminal)
    assert process.wait(60) == 129
    assert 5 <= len(history(parts)) < 8

    done = kbnn("train", "-o", str(parts), "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert history(parts) == history(whole)
    assert {**json.loads(done.stdout), "run": ""} == {**reported, "run": ""}
    weights = [Run.open(run).model().get_weights() for run in (whole, parts)]
    assert all((mine == theirs).all() for mine, theirs in zip(*weights, strict=True))

    evaluated = CliRunner().invoke(main, ["evaluate", str(parts), "--json"])
    assert evaluated.exit_code == 0, evaluated.output
    assert json.loads(evaluated.stdout)["top1"] == reported["top1"]


def without_network(home: Path) -> dict[str, str]:
    return {**ENVIRONMENT, "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HOME": str(home)}


def test_a_missing_data_set_is_one_line(tmp_path: Path):
    """Run as a process, to check that tensorflow-datasets prints nothing on standard output."""
    done = kbnn("train", "--model", "tiny", "--dataset", "cifar100", cwd=tmp_path, env=without_network(tmp_path))
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: data set 'cifar100' is not prepared in ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "runs").exists()
