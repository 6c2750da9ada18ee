"""The flags of the tool, and the meaning of its failures."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_tools import CAPTURED

from kbnn.converters.benchmark.report import BenchmarkOptions
from kbnn.converters.benchmark.tool import ToolCommand, check_flags, explain
from kbnn.converters.benchmark.transports import Completed
from kbnn.errors import UsageError


def captured(case: str) -> Completed:
    status, stdout, stderr = ((CAPTURED / f"{case}.{part}").read_text() for part in ("rc", "stdout", "stderr"))
    return Completed(int(status), stdout, stderr)


@pytest.mark.parametrize(
    ("done", "meaning"),
    [
        (captured("out-arm.truncated"), "damaged or cut off"),
        (
            Completed(
                1,
                "",
                "ERROR: larq_compute_engine/tflite/kernels/bconv2d.cc:262 Grouped binary convolutions are not "
                "supported with this kernel\n",
            ),
            "convert the model to its portable form",
        ),
        (captured("out-arm.missing"), "Could not open 'nope.tflite'"),
        (Completed(1, "", "ERROR: Encountered unresolved custom op: LceQuantize.\n"), "plain TensorFlow Lite tool"),
        (Completed(1, "", "ERROR: Encountered unresolved custom op: MyOp.\nSee"), "unresolved custom op: MyOp; 'kbnn"),
        (Completed(1, "", "./tool: /lib/libc.so.6: version `GLIBC_2.34' not found (required by"), "(GLIBC_2.34)"),
        (Completed(126, "", "sh: 1: tool: Exec format error"), "another architecture"),
        (Completed(127, "", "sh: 1: tool: not found"), "its loader is missing"),
        (Completed(126, "", "sh: 1: tool: Permission denied"), "noexec"),
        (Completed(-signal.SIGSEGV, "", ""), "it crashed (SIGSEGV)"),
        (Completed(128 + signal.SIGILL, "", ""), "it crashed (SIGILL)"),
        (Completed(9, "out", "some\nwords"), "ended with status 9 and printed 'some words out'"),
    ],
)
def test_failures(done: Completed, meaning: str):
    assert meaning in explain(done)
    assert "\n" not in explain(done)


SETTINGS = BenchmarkOptions(threads=2, warmup=3, runs=4, repeats=5, kernel="indirect")


def test_every_flag_that_matters_is_set():
    flags = frozenset({"graph", "max_secs", "min_secs", "warmup_min_secs"})
    assert ToolCommand(("./tool",), flags, "tool").measure("m.tflite", SETTINGS, profile=True) == [
        *("./tool", "--graph=m.tflite", "--num_threads=2", "--warmup_runs=3", "--num_runs=4"),
        *("--use_indirect_bgemm=true", "--max_secs=150", "--min_secs=0", "--warmup_min_secs=0.5"),
        "--enable_op_profiling=true",
    ]


def test_more_flags_are_passed_on_and_override_the_drivers():
    flags = frozenset({"graph", "max_secs", "use_xnnpack"})
    settings = replace(SETTINGS, flags={"use_xnnpack": "false", "max_secs": "5"})
    words = ToolCommand(("./tool",), flags, "tool").measure("m.tflite", settings)
    assert words[-2:] == ["--use_xnnpack=false", "--max_secs=5"]
    assert sum("max_secs" in word for word in words) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"use_xnnpak": "false"}, "did you mean use_xnnpack"),
        ({"graph": "other.tflite"}, "set by the benchmark itself"),
        ({"num_threads": "4"}, "set by the benchmark itself"),
    ],
)
def test_flags_that_cannot_be_passed_on(flags: dict[str, str], message: str):
    command = ToolCommand(("./tool",), frozenset({"graph", "use_xnnpack", "num_threads"}), "tool")
    with pytest.raises(UsageError, match=message):
        check_flags(command, flags)


def test_flags_that_the_tool_does_not_have_are_not_used():
    words = ToolCommand(("./tool",), frozenset({"graph"}), "tool").measure("m.tflite", SETTINGS)
    assert not any("secs" in word for word in words)
    assert Path(words[0]).name == "tool"
