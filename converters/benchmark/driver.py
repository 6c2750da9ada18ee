"""Measures files: several processes of the tool per file, interleaved between files, then one that makes a profile."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from kbnn.converters.benchmark import device
from kbnn.converters.benchmark.judge import judge
from kbnn.converters.benchmark.numerics import check_images, check_numerics
from kbnn.converters.benchmark.output import Output, parse
from kbnn.converters.benchmark.program import read_program
from kbnn.converters.benchmark.report import (
    BenchmarkComparison,
    BenchmarkOptions,
    BenchmarkReport,
    MeasuredFile,
    Measurement,
    Numerics,
    OperatorTime,
    Target,
    Tool,
    number,
    summarize,
)
from kbnn.converters.benchmark.tool import (
    KERNEL_FLAGS,
    MAX_SECONDS,
    PYTHON,
    ToolCommand,
    check_flags,
    check_kernel,
    explain,
    identify,
    install,
    is_grouped_refusal,
)
from kbnn.converters.benchmark.transports import ConnectionLostError, Transport, transport
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.interpreter import UnsupportedKernelError
from kbnn.errors import KbnnError, UsageError, unknown

_IDENTIFIER = b"TFL3"
# Seconds for loading a large file on a slow device, warm-up and measurement.
_PATIENCE = 2 * MAX_SECONDS + 120
# Seconds to wait before each new attempt after a lost connection.
_WAITS = (1.0, 5.0, 15.0)
_T = TypeVar("_T")
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to measure; `name` stands for its path in reports, progress and errors, where the path means nothing."""

    path: Path
    settings: BenchmarkOptions
    name: str = ""

    def file(self) -> MeasuredFile:
        """The file as reports show it.

        Raises:
            UsageError: it is missing, or not a TensorFlow Lite file.
        """
        shown = self.name or str(self.path)
        if not self.path.is_file():
            is_there = "is not a file" if self.path.exists() else "does not exist"
            what = "is a folder" if self.path.is_dir() else is_there
            raise UsageError(f"cannot benchmark '{shown}': it {what}; give a .tflite file")
        if self.path.stat().st_size > flatbuffer.LARGEST:
            raise UsageError(f"cannot benchmark '{shown}': it has more than the format's 2 GB; give a .tflite file")
        content = self.path.read_bytes()
        if content[4:8] != _IDENTIFIER:
            what = f"begins with {content[:8]!r}" if content else "is empty"
            raise UsageError(f"'{shown}' is not a TensorFlow Lite file: it {what}; convert the model again")
        return MeasuredFile(shown, hashlib.sha256(content).hexdigest(), len(content))


class IncompleteError(ConnectionLostError):
    """The device cannot be reached any more; `comparison` has what was measured before."""

    def __init__(self, message: str, comparison: BenchmarkComparison) -> None:
        super().__init__(message)
        self.comparison = comparison


def benchmark(
    path: str | os.PathLike[str],
    target: str = "local",
    tool: str | os.PathLike[str] = PYTHON,
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 50,
    repeats: int = 5,
    kernel: str | None = None,
    flags: Mapping[str, str] | None = None,
    images: np.ndarray | None = None,
    progress: Progress = lambda line: None,
) -> BenchmarkReport:
    """Measures the latency of one file in `repeats` processes, each with `warmup` and then `runs` inferences.

    Args:
        path: the .tflite file.
        target: "local", "ssh://user@host[:port]", "adb[:serial]", or "qemu" for an emulator, whose latencies are
            withheld.
        tool: the path of `lce_benchmark_model` for the target, or "python" for LCE's interpreter on this machine.
        threads: the number of threads of an inference.
        warmup: the number of inferences before the measured ones.
        runs: the number of measured inferences per process.
        repeats: the number of processes.
        kernel: "default", "indirect" or "reference". By default it is "indirect" for the Python interpreter, whose
            default kernel is not optimized for x86, and "default" for other tools.
        flags: more flags of the tool by name, such as `{"use_xnnpack": "false"}`.
        images: `(N, H, W, C)` in the data type of the file's input, or real values, which are quantized for files in
            int8. The target also runs the file on them, and its outputs are compared with those of the interpreter on
            this machine.
        progress: called with each line of progress.

    Raises:
        UsageError: the file is missing or not a TensorFlow Lite file, or an argument is out of range.
        KbnnError: the target cannot be reached, or the tool cannot run there or cannot run the file.
        IncompleteError: the connection was lost and could not be restored; its `comparison` has what was measured.

    Example:
        >>> report = kbnn.converters.benchmark("bireal18.tflite", "ssh://pi@raspberrypi", "lce_benchmark_model_aarch64")
        >>> print(report)
    """
    comparison = compare(
        [path],
        target,
        tool,
        threads=threads,
        warmup=warmup,
        runs=runs,
        repeats=repeats,
        kernel=kernel,
        flags=flags,
        images=images,
        progress=progress,
    )
    return comparison.reports[0]


def compare(
    paths: Sequence[str | os.PathLike[str]],
    target: str = "local",
    tool: str | os.PathLike[str] = PYTHON,
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 50,
    repeats: int = 5,
    kernel: str | None = None,
    flags: Mapping[str, str] | None = None,
    images: np.ndarray | None = None,
    progress: Progress = lambda line: None,
) -> BenchmarkComparison:
    """Measures several files as `benchmark` does, interleaved, so that thermal drift affects all files equally.

    Raises:
        UsageError, KbnnError, IncompleteError: as `benchmark`.
    """
    if not paths:
        raise UsageError("nothing to benchmark: received no file; give one or more .tflite files")
    settings = BenchmarkOptions(threads, warmup, runs, repeats, kernel or default_kernel(tool), dict(flags or {}))
    return compare_jobs([Job(Path(path), settings) for path in paths], target, tool, images=images, progress=progress)


def default_kernel(tool: str | os.PathLike[str]) -> str:
    """The kernel that is measured by default."""
    return "indirect" if os.fspath(tool) == PYTHON else "default"


def compare_jobs(
    jobs: Sequence[Job],
    target: str,
    tool: str | os.PathLike[str],
    *,
    images: np.ndarray | None = None,
    progress: Progress = lambda line: None,
) -> BenchmarkComparison:
    """Measures several files as `compare` does, each with its own options.

    Raises:
        UsageError, KbnnError, IncompleteError: as `benchmark`.
    """
    program = None if os.fspath(tool) == PYTHON else read_program(Path(tool))
    for job in jobs:
        _check(job.settings)
    files = [job.file() for job in jobs]
    if program is None:
        for job in jobs:
            # The interpreter trusts a file; other tools check it.
            flatbuffer.read(job.path)
    with transport(target, program).session() as place:
        found = device.describe(place)
        if program:
            device.check(program, found)
        command = install(place, program)
        for job in jobs:
            check_kernel(command, job.settings.kernel)
            check_flags(command, job.settings.flags)
            if images is not None:
                check_images(command, str(job.path), images)
        bench = _Bench(place, command, images, progress)
        lost = bench.measure(list(zip(files, jobs, strict=True)))
        if lost is None and not found.emulated:
            with contextlib.suppress(ConnectionLostError):
                found = dataclasses.replace(found, after=device.state(place))
    identity = identify(program)
    measured = zip(files, jobs, bench.measured, strict=True)
    reports = (_report(file, identity, found, job.settings, each) for file, job, each in measured)
    comparison = BenchmarkComparison(tuple(reports))
    if lost:
        raise IncompleteError(str(lost), comparison) from lost
    return comparison


def _check(settings: BenchmarkOptions) -> None:
    if settings.kernel not in KERNEL_FLAGS:
        raise unknown("kernel", settings.kernel, KERNEL_FLAGS)
    for name, least in (("threads", 1), ("warmup", 0), ("runs", 1), ("repeats", 1)):
        if (value := getattr(settings, name)) < least:
            raise UsageError(f"{name} must be at least {least}: received {value}; choose a larger number")


@dataclasses.dataclass
class _Measured:
    """The measurements of one file so far."""

    outputs: list[Output] = dataclasses.field(default_factory=list)
    operators: tuple[OperatorTime, ...] = ()
    numerics: Numerics | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


class _Bench:
    """Runs the tool, and keeps the measurements, so that they survive a lost connection."""

    def __init__(self, place: Transport, command: ToolCommand, images: np.ndarray | None, progress: Progress) -> None:
        self.place = place
        self.command = command
        self.images = images
        self.progress = progress
        self.measured: list[_Measured] = []

    def measure(self, files: Sequence[tuple[MeasuredFile, Job]]) -> ConnectionLostError | None:
        """Measures and profiles all files; returns the error if the connection was lost."""
        self.measured = [_Measured() for _ in files]
        try:
            self._measure(files)
        except ConnectionLostError as error:
            return error
        return None

    def _measure(self, files: Sequence[tuple[MeasuredFile, Job]]) -> None:
        places = [self._persist(functools.partial(self.place.put, job.path)) for _, job in files]
        for turn in range(max(job.settings.repeats for _, job in files)):
            for k, (file, job) in enumerate(files):
                self.measured[k].outputs.append(self._run(file, job.settings, places[k]))
                self.progress(f"{file.path}: process {turn + 1} of {job.settings.repeats} done")
        for k, (file, job) in enumerate(files):
            if self.command.knows("enable_op_profiling"):
                output = self._run(file, job.settings, places[k], profile=True)
                self.measured[k].operators = output.operators
                if output.profile_problem:
                    note = f"the tool printed an impossible profile ({output.profile_problem}), which is left out"
                    self.measured[k].notes.append(note)
                self.progress(f"{file.path}: profile done")
            if self.images is not None:
                check = functools.partial(
                    check_numerics, self.place, self.command, job.settings, str(job.path), places[k]
                )
                self.measured[k].numerics = self._persist(functools.partial(check, self.images))
                self.progress(f"{file.path}: outputs for {number(len(self.images), 'image')} compared")

    def _run(self, file: MeasuredFile, settings: BenchmarkOptions, graph: str, profile: bool = False) -> Output:
        """Runs one process of the tool.

        Raises:
            KbnnError: the tool refused the file, crashed, measured nothing, or printed no figures.
        """
        words = self.command.measure(graph, settings, profile)
        done = self._persist(lambda: self.place.run(words, _PATIENCE))
        output = parse(done.stdout)
        # The tool knows only the path on the device.
        why = explain(done).replace(graph, file.path)
        if is_grouped_refusal(done):
            raise UnsupportedKernelError(f"cannot benchmark '{file.path}' on {self.place.name}: {why}")
        if output.problem:
            raise KbnnError(
                f"cannot benchmark '{file.path}' on {self.place.name}: the tool printed the impossible figure "
                f"{output.problem}; use another tool"
            )
        if done.status or output.measured is None:
            raise KbnnError(f"cannot benchmark '{file.path}' on {self.place.name}: {why}")
        if output.dry_run or output.measured.count == 0:
            raise KbnnError(
                f"'{self.command.path}' made a dry run of '{file.path}' and measured nothing; use another tool"
            )
        return output

    def _persist(self, action: Callable[[], _T]) -> _T:
        """Repeats an action a few times if the connection is lost."""
        for wait in _WAITS:
            try:
                return action()
            except ConnectionLostError as error:
                self.progress(f"{error}; next attempt in {wait:g} s")
            time.sleep(wait)
            with contextlib.suppress(ConnectionLostError):
                self.place.open()
        return action()


def _report(
    file: MeasuredFile, tool: Tool, target: Target, settings: BenchmarkOptions, measured: _Measured
) -> BenchmarkReport:
    runs = tuple(output.measured for output in measured.outputs if output.measured)
    operators = measured.operators
    if target.emulated:
        runs = tuple(_withheld(run) for run in runs)
        operators = tuple(OperatorTime(operator.type, operator.count, None, None) for operator in operators)
    summary = summarize(runs)
    findings = judge(target, settings, measured.outputs, runs, summary)
    return BenchmarkReport(
        file=file,
        tool=tool,
        target=target,
        settings=settings,
        runs=runs,
        summary=summary,
        operators=operators,
        binary_share_of_time=_binary_share(operators),
        numerics=measured.numerics,
        timing_valid=not any(finding.invalidates for finding in findings),
        warnings=(*(finding.text for finding in findings), *measured.notes),
    )


def _withheld(run: Measurement) -> Measurement:
    return Measurement(run.count, None, None, None, None, None, None, None)


def _binary_share(operators: Sequence[OperatorTime]) -> float | None:
    times = [(operator.type, operator.mean_ms) for operator in operators if operator.mean_ms is not None]
    total = sum(time for _, time in times)
    return sum(time for name, time in times if name.startswith("Lce")) / total if total else None
