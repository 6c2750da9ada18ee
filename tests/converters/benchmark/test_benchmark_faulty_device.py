"""A faulty device, whose output, figures and names cannot be trusted."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmark_tools import CAPTURED, HELP

from kbnn.converters.benchmark import benchmark, record
from kbnn.converters.benchmark.output import parse
from kbnn.converters.benchmark.transports import process
from kbnn.converters.benchmark.transports.local import LocalTransport
from kbnn.errors import KbnnError

DEFAULT = (CAPTURED / "out-arm.default.stdout").read_text()
PROFILE = (CAPTURED / "out-arm.op_profiling.stdout").read_text()


def tool(folder: Path, script: str, profile: str | None = None) -> Path:
    """A script with the tool's help that runs another piece of shell script, or prints a profile."""
    (folder / "help").write_text(HELP)
    (folder / "profile").write_text(DEFAULT if profile is None else profile)
    path = folder / "faulty tool"
    path.write_text(
        f"#!/bin/sh\ncase \"$*\" in\n*--help*) cat '{folder}/help' >&2; exit 1 ;;\n"
        f"*enable_op_profiling=true*) cat '{folder}/profile' ;;\n*) {script} ;;\nesac\n"
    )
    path.chmod(0o700)
    return path


def prints(folder: Path, text: str, profile: str | None = None) -> Path:
    (folder / "output").write_text(text)
    return tool(folder, f"cat '{folder}/output'", profile)


@pytest.mark.parametrize("stream", ["1", "2"])
def test_endless_output_is_cut_off(model: Path, tmp_path: Path, stream: str):
    with pytest.raises(KbnnError, match="was stopped after 16 MB of output"):
        benchmark(model, tool=tool(tmp_path, f"exec cat /dev/zero >&{stream}"), repeats=1)


def test_endless_output_of_a_child_is_cut_off(model: Path, tmp_path: Path):
    with pytest.raises(KbnnError, match="was stopped after 16 MB of output"):
        benchmark(model, tool=tool(tmp_path, "yes & yes"), repeats=1)


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path):
    started = time.monotonic()
    with LocalTransport().session() as place, pytest.raises(KbnnError, match="stopped after 1 s"):
        place.run(["sh", "-c", "sleep 60 & sleep 60"], seconds=1)
    assert time.monotonic() - started < 50


def test_a_child_that_keeps_the_pipe_open_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "_PATIENCE", 0.2)
    done = process.call(["sh", "-c", "sleep 60 & echo done"], 30)
    assert done.stdout == b"done\n"


@pytest.mark.slow
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-45865.1", "1e999", "4..5", "0x10", "twelve"])
@pytest.mark.parametrize("name", ["avg", "min", "max"])
def test_impossible_figures_are_refused(model: Path, tmp_path: Path, name: str, value: str):
    known = {"avg": "45865.1", "min": "43268", "max": "62713"}[name]
    with pytest.raises(KbnnError, match=rf"printed the impossible figure '{name}=") as caught:
        benchmark(model, tool=prints(tmp_path, DEFAULT.replace(f"{name}={known}", f"{name}={value}")), repeats=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "INFO: count=50",
        "INFO: count=50 first=",
        f"INFO: count={'9' * 5000} first=1 curr=1 min=1 max=1 avg=1 std=0",
        "INFO: count=-1 first=1 curr=1 min=1 max=1 avg=1 std=0",
        "INFO: count=1 curr=nan",
        "INFO: count=50 avg=12.5",
        "INFO: count=50 curr=12.5",
        "INFO: count=50 min=20 max=30 avg=12.5 std=1",
        "INFO: count=50 min=20 max=30 avg=40 std=1",
        "INFO: count=50 min=20 max=30 avg=25 std=1 p5=29 median=28 p95=30",
        "INFO: count=50 min=1 max=1e300 avg=1e299 std=1",
        "INFO: count=50 min=20 max=30 avg=25 avg=26 std=1",
    ],
)
def test_malformed_lines_are_an_error_and_never_a_traceback(model: Path, tmp_path: Path, line: str):
    with pytest.raises(KbnnError, match="cannot benchmark"):
        benchmark(model, tool=prints(tmp_path, f"INFO: count=1 curr=3\n{line}\n"), repeats=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value"),
    [(1, "x"), (1, "9" * 5000), (2, "nan"), (2, "-1"), (2, "1e999"), (3, "abc%"), (3, "900%"), (6, "-4")],
)
def test_a_malformed_profile_is_left_out_with_a_warning(model: Path, tmp_path: Path, column: int, value: str):
    lines = PROFILE.split("\n")
    start = max(k for k, line in enumerate(lines) if "Summary by node type" in line)
    columns = lines[start + 2].split("\t")
    columns[column + 1] = value
    lines[start + 2] = "\t".join(columns)
    report = benchmark(model, tool=prints(tmp_path, DEFAULT, "\n".join(lines)))
    assert report.operators == ()
    assert report.summary.median_of_means_us == 45865.1
    assert any("impossible profile" in warning for warning in report.warnings)


def test_names_from_a_device_cannot_control_the_terminal(model: Path, tmp_path: Path):
    profile = PROFILE.replace("LceBconv2d", "\x1b[31m=HYPERLINK(1)\x07")
    report = benchmark(model, tool=prints(tmp_path, DEFAULT, profile))
    assert any(r"\x1b[31m" in operator.type for operator in report.operators)
    assert "\x1b" not in str(report)
    ended = tool(tmp_path, "printf '\\033[2J ERROR'; exit 3")
    with pytest.raises(KbnnError, match=r"\\x1b\[2J") as caught:
        benchmark(model, tool=ended)
    assert "\x1b" not in str(caught.value)


def test_names_from_a_device_do_not_become_formulas(model: Path, tmp_path: Path):
    flag = "WARN: Unconsumed cmdline flags: =cmd|'/c calc'!A1\n"
    report = benchmark(model, tool=prints(tmp_path, flag + DEFAULT), repeats=5)
    from kbnn.converters.benchmark import BenchmarkComparison

    hostile = tmp_path / "=1+1.csv"
    record.append(hostile, BenchmarkComparison((report,)))
    with hostile.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert not any(cell.startswith(("=", "+", "@")) for cell in row.values())


def test_facts_of_a_device_are_checked(monkeypatch: pytest.MonkeyPatch):
    from kbnn.converters.benchmark import device
    from kbnn.converters.benchmark.transports.transport import Completed

    said = (
        "load=nan\ncores=-4\nmemory_available_kb=1e5\nmodel=\x1b]0;owned\x07\nmachine=aarch64\n" + "junk=1\n" * 10_000
    )
    place = LocalTransport()
    monkeypatch.setattr(place, "run", lambda command, seconds: Completed(0, said, ""))
    found = device.describe(place)
    assert found.before.load is None
    assert found.cores is None
    assert found.before.memory_available_bytes is None
    assert "\x1b" not in found.description
    assert r"\x1b]0;owned\x07" in found.model


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_local_folder_is_removed_when_the_process_is_ended(
    model: Path, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    slow = tool(tmp_path, f"touch '{tmp_path}/started'; exec sleep 60")
    # Under nohup, SIGHUP would be ignored.
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    script += f"from kbnn.converters.benchmark import benchmark; benchmark({str(model)!r}, tool={str(slow)!r})"
    running = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    running.send_signal(number)
    assert running.wait(120) == 128 + number
    assert list(temporary.iterdir()) == []


def test_delegated_operators_are_counted_as_often_as_they_are_called():
    operators = {o.type: o for o in parse((CAPTURED / "out-x86-xnn.op_profiling.stdout").read_text()).operators}
    assert operators["Add (ND, F32)"].count == 4
    assert operators["LceBconv2d"].count == 4
    assert operators["Softmax (NC, F32)"].count == 1
