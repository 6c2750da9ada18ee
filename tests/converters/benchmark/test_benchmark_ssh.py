"""A real sshd on the loopback interface, with new keys for each test."""

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from benchmark_tools import replay

from kbnn.converters.benchmark import IncompleteError, benchmark, driver, python_tool
from kbnn.converters.benchmark.transports import ConnectionLostError, shell
from kbnn.converters.benchmark.transports.ssh import SshTransport
from kbnn.converters.tflite import lce
from kbnn.errors import KbnnError, UsageError

# Breaks the connection from inside the tool: kills the ssh server's process for it.
HANG_UP = """
 server=$$
 while case "$(cat /proc/$server/comm)" in sshd*) false ;; esac; do server=$(cut -d ' ' -f 4 /proc/$server/stat); done
 kill -9 $server"""


@dataclass
class Server:
    address: str
    store: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def connections(self) -> int:
        """How many times a client has logged in."""
        return self.log.read_text().count("Accepted publickey")

    @property
    def private_folders(self) -> list[Path]:
        return list(self.store.glob("run.*"))


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("no sshd: install openssh-server (see .ci/packages)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    port = free_port()
    cache = tmp_path / "a cache's folder"
    configuration = folder / "server"
    configuration.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "LogLevel VERBOSE\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
        # A home without start-up files, which may print something or be slow.
        f'SetEnv "XDG_CACHE_HOME={cache}" "HOME={tmp_path}"\n'
    )
    client = folder / "client"
    client.write_text(
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
        f"  StrictHostKeyChecking accept-new\n"
    )
    monkeypatch.setenv("KBNN_SSH", f"ssh -F {shlex.quote(str(client))}")
    monkeypatch.setattr(driver, "_WAITS", (0.05, 0.05))
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen([program, "-D", "-e", "-f", configuration], stderr=errors)
    try:
        wait_for(port)
        yield Server(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", cache / "kbnn", process, log)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("sshd did not start")


def test_a_program_runs_on_the_device(sshd: Server, probe: Path, model: Path):
    report = benchmark(model, sshd.address, probe, repeats=2, runs=5, warmup=1)
    assert [run.count for run in report.runs] == [5, 5]
    assert report.summary.median_of_means_us > 0
    assert [operator.type for operator in report.operators] == ["LceBconv2d"]
    assert report.binary_share_of_time == 1
    assert report.target.name == sshd.address
    assert report.target.architecture == os.uname().machine
    assert report.target.before.load is not None
    assert report.target.after is not None
    assert not list(sshd.store.parents[1].rglob("touched"))


def test_all_commands_share_one_connection(sshd: Server, probe: Path, model: Path):
    benchmark(model, sshd.address, probe, repeats=5, runs=2)
    assert sshd.connections == 1


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still not true"
        time.sleep(0.05)


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    # A zombie has ended; its parent has not waited for it yet.
    return "Z" in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_benchmark_nothing_is_left_on_the_device(
    sshd: Server, model: Path, tmp_path: Path, number: signal.Signals
):
    tool = replay(tmp_path, "out-arm.default", before=f"echo $$ >{tmp_path}/pid; exec sleep 60")
    arguments = [str(model), "--target", sshd.address, "--tool", str(tool)]
    # Under nohup, SIGHUP would be ignored, and in a shell's background, SIGINT.
    script = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    script += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "from kbnn.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "benchmark", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().strip(), 60)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    wait_until(lambda: gone(int(pid.read_text())))
    wait_until(lambda: sshd.private_folders == [])


def test_leftovers_of_an_ended_process_are_removed_by_the_next_connection(sshd: Server, probe: Path, model: Path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = sshd.store / f"run.{shell._HERE}-{ended.pid}.abcdef"
    others = sshd.store / f"run.{shell._HERE}-{os.getpid()}.ghijkl"
    for folder in (left, others):
        folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=left) as running, subprocess.Popen(["sleep", "60"]) as foreign:
        try:
            (left / "pid").write_text(str(running.pid))
            # This number has been reused by another program.
            (others / "pid").write_text(str(foreign.pid))
            benchmark(model, sshd.address, probe, repeats=1, runs=2)
            assert running.wait(60) == -signal.SIGKILL
            assert foreign.poll() is None
        finally:
            running.kill()
            foreign.kill()
    assert not left.exists()
    assert sshd.private_folders == [others]


def test_a_reused_process_number_is_not_killed(sshd: Server, tmp_path: Path):
    folder = tmp_path / "run.x"
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as foreign:
        (folder / "pid").write_text(str(foreign.pid))
        subprocess.run(["sh", "-c", shell.cleaning(shlex.quote(str(folder)))], check=True)
        assert foreign.poll() is None
        foreign.kill()
    assert not folder.exists()


@pytest.mark.slow
def test_nothing_is_sent_twice_and_the_private_folder_is_removed(
    sshd: Server, probe: Path, model: Path, monkeypatch: pytest.MonkeyPatch
):
    sent = []
    copy = SshTransport._copy_there

    def counted(self: SshTransport, path: Path, place: str) -> None:
        sent.append(path)
        copy(self, path, place)

    monkeypatch.setattr(SshTransport, "_copy_there", counted)
    for _ in range(2):
        benchmark(model, sshd.address, probe, repeats=1, runs=2)
    assert sent.count(probe) == sent.count(model) == 1
    assert sshd.private_folders == []
    assert sshd.store.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_damaged_copy_is_sent_again(sshd: Server, probe: Path, model: Path):
    first = benchmark(model, sshd.address, probe, repeats=1, runs=2)
    (sshd.store / first.tool.sha256).write_bytes(b"#!/bin/sh\necho someone else's\n")
    (sshd.store / first.file.sha256).write_bytes(model.read_bytes()[:100])
    again = benchmark(model, sshd.address, probe, repeats=1, runs=2)
    assert again.runs[0].count == 2


@pytest.mark.slow
def test_the_interpreter_itself_over_ssh(sshd: Server, files: dict[str, Path], tmp_path: Path):
    tool = tmp_path / "tool"
    words = shlex.join([sys.executable, python_tool.__file__, f"--runtime={lce.runtime_path()}"])
    tool.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    images = np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)
    report = benchmark(files["binary"], sshd.address, tool, repeats=2, runs=3, warmup=1, images=images)
    assert all(run.count == 3 and run.p95_us is not None for run in report.runs)
    assert report.numerics.images == 2
    assert report.numerics.max_abs_difference <= 1e-4 * report.numerics.output_range
    assert sshd.private_folders == []


@pytest.mark.slow
def test_a_lost_connection_is_opened_again(sshd: Server, model: Path, tmp_path: Path):
    before = f"[ -e {tmp_path}/lost ] || {{ touch {tmp_path}/lost; {HANG_UP}\n sleep 60; }}"
    tool = replay(tmp_path, "out-arm.default", "out-arm.op_profiling", before=before)
    lines: list[str] = []
    report = benchmark(model, sshd.address, tool, repeats=2, progress=lines.append)
    assert (tmp_path / "lost").exists()
    assert [run.mean_us for run in report.runs] == [45865.1, 45865.1]
    assert sum("lost the connection" in line for line in lines) == 1
    assert sshd.private_folders == []


@pytest.mark.slow
def test_the_tool_is_ended_after_a_lost_connection(sshd: Server, model: Path, tmp_path: Path):
    before = f"[ -e {tmp_path}/pid ] || {{ echo $$ >{tmp_path}/pid; {HANG_UP}\n exec sleep 60; }}"
    tool = replay(tmp_path, "out-arm.default", before=before)
    benchmark(model, sshd.address, tool, repeats=1)
    left = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(left, 0)


def test_a_connection_that_stays_lost_keeps_what_was_measured(sshd: Server, model: Path, tmp_path: Path):
    third = f"echo >>{tmp_path}/count; [ $(wc -l <{tmp_path}/count) = 3 ]"
    before = f"if {third}; then kill -9 {sshd.process.pid}; {HANG_UP}\n fi"
    tool = replay(tmp_path, "out-arm.default", "out-arm.op_profiling", before=before)
    with pytest.raises(IncompleteError, match="lost the connection") as caught:
        benchmark(model, sshd.address, tool, repeats=5)
    report = caught.value.comparison.reports[0]
    assert [run.mean_us for run in report.runs] == [45865.1, 45865.1]
    assert not report.timing_valid
    assert "the connection was lost: 2 of 5 processes measured" in report.warnings


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, probe: Path, model: Path):
    if not shutil.which("ssh"):
        pytest.skip("no ssh: install openssh-client")
    with pytest.raises(ConnectionLostError, match="refused") as caught:
        benchmark(model, f"ssh://127.0.0.1:{free_port()}", probe)
    assert "\n" not in str(caught.value)


def test_no_ssh_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, probe: Path, model: Path):
    monkeypatch.setenv("KBNN_SSH", "no-such-ssh")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(KbnnError, match="'no-such-ssh' is not installed"):
        benchmark(model, "ssh://127.0.0.1", probe)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        "ssh://",
        "ssh://-oProxyCommand=touch",
        "ssh://-l@host",
        "ssh://user@-host",
        "ssh://user:secret@host",
        "ssh://host/path",
        "ssh://host:port",
        "ssh://host;reboot",
        "ssh://$(reboot)",
        "ssh://ho st",
        "ssh://host\n",
    ],
)
def test_invalid_addresses(address: str):
    with pytest.raises(UsageError, match="write ssh://user@host"):
        SshTransport(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ssh://Pi4", ["--", "Pi4"]),
        ("ssh://pi@raspberrypi.local", ["-l", "pi", "--", "raspberrypi.local"]),
        ("ssh://pi@10.0.0.2:2222", ["-p", "2222", "-l", "pi", "--", "10.0.0.2"]),
        ("ssh://[fe80::1%eth0]:22", ["-p", "22", "--", "fe80::1%eth0"]),
    ],
)
def test_addresses(address: str, words: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KBNN_SSH", raising=False)
    assert SshTransport(address)._address[-len(words) :] == words
