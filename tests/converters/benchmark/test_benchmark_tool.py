"""The tool's flags, and what its failures mean."""

import signal
from pathlib import Path

import pytest
from benchmark_tools import CAPTURED

from kbnn.converters.benchmark.report import Settings
from kbnn.converters.benchmark.tool import Command, explain
from kbnn.converters.benchmark.transports import Completed


def captured(case: str) -> Completed:
    status, stdout, stderr = ((CAPTURED / f"{case}.{part}").read_text() for part in ("rc", "stdout", "stderr"))
    return Completed(int(status), stdout, stderr)


@pytest.mark.parametrize(
    ("done", "meaning"),
    [
        (captured("out-arm.truncated"), "damaged or cut off"),
        (captured("out-arm.missing"), "Could not open 'nope.tflite'"),
        (Completed(1, "", "ERROR: Encountered unresolved custom op: LceQuantize.\n"), "plain TensorFlow Lite tool"),
        (Completed(1, "", "ERROR: Encountered unresolved custom op: MyOp.\nSee"), "unresolved custom op: MyOp; 'kbnn"),
        (Completed(1, "", "./tool: /lib/libc.so.6: version `GLIBC_2.34' not found (required by"), "(GLIBC_2.34)"),
        (Completed(126, "", "sh: 1: tool: Exec format error"), "another architecture"),
        (Completed(127, "", "sh: 1: tool: not found"), "its loader is missing"),
        (Completed(126, "", "sh: 1: tool: Permission denied"), "noexec"),
        (Completed(-signal.SIGSEGV, "", ""), "it crashed (SIGSEGV)"),
        (Completed(128 + signal.SIGILL, "", ""), "it crashed (SIGILL)"),
        (Completed(9, "out", "some\nwords"), "ended with status 9 and said 'some words out'"),
    ],
)
def test_failures(done: Completed, meaning: str):
    assert meaning in explain(done)
    assert "\n" not in explain(done)


SETTINGS = Settings(threads=2, warmup=3, runs=4, repeats=5, kernel="indirect")


def test_nothing_is_left_to_the_tools_defaults():
    flags = frozenset({"graph", "max_secs", "min_secs", "warmup_min_secs"})
    assert Command(("./tool",), flags, "tool").measure("m.tflite", SETTINGS, profile=True) == [
        *("./tool", "--graph=m.tflite", "--num_threads=2", "--warmup_runs=3", "--num_runs=4"),
        *("--use_indirect_bgemm=true", "--max_secs=150", "--min_secs=0", "--warmup_min_secs=0.5"),
        "--enable_op_profiling=true",
    ]


def test_flags_that_the_tool_lacks_are_not_used():
    words = Command(("./tool",), frozenset({"graph"}), "tool").measure("m.tflite", SETTINGS)
    assert not any("secs" in word for word in words)
    assert Path(words[0]).name == "tool"
