"""Measures files: some processes of the tool per file, files in turns, then a judgement of the figures."""

import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kbnn.converters.benchmark import python_tool
from kbnn.converters.benchmark.output import parse
from kbnn.converters.benchmark.report import (
    SPREAD_LIMIT,
    Comparison,
    File,
    Report,
    Run,
    Settings,
    Target,
    Tool,
    summarize,
)
from kbnn.errors import KbnnError, UsageError, unknown

KERNELS = {
    "default": (),
    "indirect": ("--use_indirect_bgemm=true",),
    "reference": ("--use_reference_bconv=true",),
}
_IDENTIFIER = b"TFL3"
_SECONDS = 150


def benchmark(
    path: str | os.PathLike[str],
    target: str = "local",
    tool: str = "python",
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 50,
    repeats: int = 5,
    kernel: str | None = None,
) -> Report:
    """The latency of one file, from `repeats` processes of `warmup` and then `runs` inferences each.

    With `tool="python"` LCE's interpreter runs the file on this machine: function for certain, latency for this
    machine only. `kernel` is "default", "indirect" or "reference"; None takes "indirect" for the Python interpreter,
    whose default kernel is not optimised for x86.

    Raises:
        UsageError: a missing file, one that is not TensorFlow Lite, or an argument out of range.
        KbnnError: the tool cannot run the file.

    Example:
        >>> report = kbnn.converters.benchmark("bireal18.tflite")
        >>> print(report)
    """
    return compare(
        [path], target, tool, threads=threads, warmup=warmup, runs=runs, repeats=repeats, kernel=kernel
    ).reports[0]


def compare(
    paths: Sequence[str | os.PathLike[str]],
    target: str = "local",
    tool: str = "python",
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 50,
    repeats: int = 5,
    kernel: str | None = None,
) -> Comparison:
    """Several files side by side: as `benchmark`, the files' processes in turns, so that a drift meets them alike.

    Raises:
        UsageError, KbnnError: as `benchmark`.
    """
    if target != "local":
        raise unknown("benchmark target", target, ["local"])
    if tool != "python":
        raise unknown("benchmark tool", tool, ["python"])
    settings = Settings(threads, warmup, runs, repeats, kernel or "indirect")
    _check(settings)
    if not paths:
        raise UsageError("nothing to benchmark: received no file; give one or more .tflite files")
    files = [_file(Path(path)) for path in paths]
    turns = [[_run(file.path, settings) for file in files] for _ in range(repeats)]
    return Comparison(
        tuple(_judge(file, settings, runs) for file, runs in zip(files, zip(*turns, strict=True), strict=True))
    )


def _check(settings: Settings) -> None:
    if settings.kernel not in KERNELS:
        raise unknown("kernel", settings.kernel, KERNELS)
    for name, least in (("threads", 1), ("warmup", 0), ("runs", 1), ("repeats", 1)):
        if (value := getattr(settings, name)) < least:
            raise UsageError(f"{name} must be at least {least}: received {value}; choose a larger number")


def _file(path: Path) -> File:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"cannot benchmark '{path}': it {what}; give a .tflite file")
    content = path.read_bytes()
    if content[4:8] != _IDENTIFIER:
        what = f"begins with {content[:8]!r}" if content else "is empty"
        raise UsageError(f"'{path}' is not a TensorFlow Lite file: it {what}; make one with 'kbnn convert'")
    return File(str(path), hashlib.sha256(content).hexdigest(), len(content))


def _run(path: str, settings: Settings) -> Run:
    """One process of the tool.

    Raises:
        KbnnError: the tool refused the file, crashed, or printed no figures.
    """
    command = [
        sys.executable,
        python_tool.__file__,
        f"--graph={Path(path).resolve()}",
        f"--num_threads={settings.threads}",
        f"--warmup_runs={settings.warmup}",
        f"--num_runs={settings.runs}",
        f"--max_secs={_SECONDS}",
        *KERNELS[settings.kernel],
    ]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    measured = parse(done.stdout).measured
    if done.returncode or measured is None:
        raise KbnnError(f"cannot benchmark '{path}': {_reason(done.returncode, done.stderr)}")
    return measured


def _reason(status: int, stderr: str) -> str:
    if "not a valid Flatbuffer" in stderr:
        return "the file is damaged or cut off; convert or copy it again"
    if status < 0:
        name = signal.Signals(-status).name
        return f"the interpreter crashed ({name}); the file is damaged, or needs more than LCE offers: convert it again"
    errors = re.findall(r"^ERROR: (.*?)(?:\. |\.?$)", stderr, re.MULTILINE)
    if not errors:
        return f"the interpreter ended with status {status} and said '{stderr.strip()[-200:]}'; try --debug"
    return f"{errors[0]}; 'kbnn inspect' lists the file's operators"


def _judge(file: File, settings: Settings, runs: Sequence[Run]) -> Report:
    summary = summarize(runs)
    warnings = []
    if any(run.count < settings.runs for run in runs):
        fewest = min(run.count for run in runs)
        warnings.append(f"fewer inferences than asked: {fewest} instead of {settings.runs} within {_SECONDS} s")
    if summary.spread is not None and summary.spread > SPREAD_LIMIT:
        warnings.append(
            f"the processes' means lie {summary.spread:.0%} apart (at most {SPREAD_LIMIT:.0%} is steady); "
            f"close other programs and measure again"
        )
    return Report(
        file=file,
        tool=_this_tool(),
        target=_this_machine(),
        settings=settings,
        runs=tuple(runs),
        summary=summary,
        operators=(),
        binary_share_of_time=None,
        timing_valid=not warnings,
        warnings=tuple(warnings),
    )


def _this_tool() -> Tool:
    path = Path(python_tool.__file__)
    return Tool("python", hashlib.sha256(path.read_bytes()).hexdigest())


def _this_machine() -> Target:
    architecture = platform.machine()
    arm = "ARM" if architecture in ("aarch64", "arm64") else "not ARM"
    return Target(
        name="local",
        description=f"this machine ({platform.system()} {architecture}, {arm})",
        architecture=architecture,
        cores=os.cpu_count() or 1,
    )
