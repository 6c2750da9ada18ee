"""The real adb client and server, with the device side from adbd.py."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from adbd import Daemon
from benchmark_tools import replay

from kbnn.converters.benchmark import IncompleteError, benchmark, driver
from kbnn.converters.benchmark.transports import ConnectionLostError, shell
from kbnn.converters.benchmark.transports.adb import AdbTransport
from kbnn.errors import KbnnError, UsageError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A separate adb server, so that no real device is touched."""
    if not shutil.which("adb"):
        pytest.skip("no adb: install it (see .ci/packages)")
    with pytest.MonkeyPatch.context() as patch:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("ADB_MDNS_AUTO_CONNECT", "0")
        subprocess.run(["adb", "start-server"], check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["adb", "kill-server"], check=False, capture_output=True)


@pytest.fixture(params=["shell_v2"])
def device(
    request: pytest.FixtureRequest, server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    monkeypatch.setattr(driver, "_WAITS", (0.05, 0.05))
    programs, folder = tmp_path / "bin", tmp_path / "data"
    programs.mkdir()
    folder.mkdir()
    program(programs / "getprop", 'case "$1" in ro.product.model) echo Pixel Test ;; esac')
    program(programs / "dumpsys", "echo 'Thermal Status: 0'")
    daemon = Daemon(folder, programs, request.param)
    try:
        yield daemon
    finally:
        daemon.close()
        subprocess.run(["adb", "disconnect", f"127.0.0.1:{daemon.port}"], check=False, capture_output=True)


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["shell_v2", ""], indirect=True, ids=["new shell", "shell before Android 7"])
def test_a_program_runs_on_the_device(device: Daemon, probe: Path, model: Path):
    report = benchmark(model, f"adb:127.0.0.1:{device.port}", probe, repeats=2, runs=5)
    assert [run.count for run in report.runs] == [5, 5]
    assert report.binary_share_of_time == 1
    assert report.target.model == "Pixel Test"
    assert report.target.before.android_thermal_status == 0
    store = device.folder / "kbnn"
    assert sorted(path.name for path in store.iterdir()) == sorted([report.tool.sha256, report.file.sha256])


def test_leftovers_of_an_ended_process_are_removed_by_the_next_connection(device: Daemon, probe: Path, model: Path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = device.folder / "kbnn" / f"run.{shell._HERE}-{ended.pid}.abcdef"
    left.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=left) as running:
        try:
            (left / "pid").write_text(str(running.pid))
            benchmark(model, f"adb:127.0.0.1:{device.port}", probe, repeats=1, runs=2)
            assert running.wait(60) == -signal.SIGKILL
        finally:
            running.kill()
    assert not left.exists()


def test_thermal_throttling_makes_figures_invalid(device: Daemon, model: Path, tmp_path: Path):
    program(tmp_path / "bin" / "dumpsys", "echo 'Thermal Status: 2'")
    tool = replay(tmp_path, "out-arm.default")
    report = benchmark(model, f"adb:127.0.0.1:{device.port}", tool, repeats=2)
    assert not report.timing_valid
    assert any("Android reports thermal status 2" in warning for warning in report.warnings)


def test_an_android_emulator_gives_no_latency(device: Daemon, model: Path, tmp_path: Path):
    program(tmp_path / "bin" / "getprop", 'case "$1" in ro.boot.qemu) echo 1 ;; esac')
    tool = replay(tmp_path, "out-arm.default", "out-arm.op_profiling")
    report = benchmark(model, f"adb:127.0.0.1:{device.port}", tool, repeats=2)
    assert report.target.emulated
    assert not report.timing_valid
    assert report.summary.median_of_means_us is None
    assert {operator.share for operator in report.operators} == {None}


def test_a_pulled_cable_keeps_what_was_measured(device: Daemon, model: Path, tmp_path: Path):
    tool = replay(tmp_path, "out-arm.default")
    pulled = []

    def pull(line: str) -> None:
        if "process 2" in line:
            pulled.append(line)
            device.close()

    with pytest.raises(IncompleteError) as caught:
        benchmark(model, f"adb:127.0.0.1:{device.port}", tool, repeats=5, progress=pull)
    assert pulled
    assert len(caught.value.comparison.reports[0].runs) == 2
    assert not caught.value.comparison.reports[0].timing_valid


def test_closed_port(server: None, probe: Path, model: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionLostError, match="not found"):
        benchmark(model, f"adb:127.0.0.1:{port}", probe)


def test_no_device(server: None, probe: Path, model: Path):
    with pytest.raises(ConnectionLostError, match="no devices") as caught:
        benchmark(model, "adb", probe)
    assert "enable USB debugging" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_adb_program(monkeypatch: pytest.MonkeyPatch, probe: Path, model: Path, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KbnnError, match="'adb' is not installed"):
        benchmark(model, "adb", probe)


@pytest.mark.parametrize("address", ["adb:-s", "adb:; reboot", "adb:$(reboot)", "adb:a b", "adb:x\n", "adbx"])
def test_invalid_addresses(address: str):
    with pytest.raises(UsageError, match="write adb or adb:SERIAL"):
        AdbTransport(address)


@pytest.mark.parametrize("serial", ["", "R58M123ABC", "emulator-5554", "192.168.1.5:5555", "[::1]:5555"])
def test_addresses(serial: str):
    assert AdbTransport(f"adb:{serial}")._serial == serial
