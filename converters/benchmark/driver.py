"""Measures files: some processes of the tool per file, files in turns, then one process with a profile."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from kbnn.converters.benchmark import device
from kbnn.converters.benchmark.judge import judge
from kbnn.converters.benchmark.numerics import check_numerics
from kbnn.converters.benchmark.output import Output, parse
from kbnn.converters.benchmark.program import read_program
from kbnn.converters.benchmark.report import (
    Comparison,
    File,
    Numerics,
    Operator,
    Report,
    Run,
    Settings,
    Target,
    Tool,
    summarize,
)
from kbnn.converters.benchmark.tool import (
    KERNELS,
    MAX_SECONDS,
    PYTHON,
    Command,
    check_kernel,
    explain,
    identify,
    install,
)
from kbnn.converters.benchmark.transports import ConnectionLostError, Transport, transport
from kbnn.converters.tflite import flatbuffer
from kbnn.errors import KbnnError, UsageError, unknown

_IDENTIFIER = b"TFL3"
# Warm-up and measurement, and the start of a large file on a slow device.
_PATIENCE = 2 * MAX_SECONDS + 120
# Seconds before each new attempt after a lost connection.
_WAITS = (1.0, 5.0, 15.0)
_T = TypeVar("_T")
Progress = Callable[[str], None]


class IncompleteError(ConnectionLostError):
    """The device is gone for good; `comparison` holds what was measured until then."""

    def __init__(self, message: str, comparison: Comparison) -> None:
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
    images: np.ndarray | None = None,
    progress: Progress = lambda line: None,
) -> Report:
    """The latency of one file, from `repeats` processes of `warmup` and then `runs` inferences each.

    `target` is "local", "ssh://user@host[:port]", "adb[:serial]" or "qemu" (which emulates, so that latencies are
    withheld); `tool` is the path of `lce_benchmark_model` for that target. With `tool="python"` LCE's interpreter runs
    the file on this machine. `kernel` is "default", "indirect" or "reference"; None takes "indirect" for the Python
    interpreter, whose default kernel is not optimised for x86. `images` `(N, H, W, C)`, in the type of the file's
    input, also go through the file where it runs, and the outputs are compared with those of the interpreter here.
    `progress` is told what happens, a line at a time.

    Raises:
        UsageError: a missing file, one that is not TensorFlow Lite, or an argument out of range.
        KbnnError: the target cannot be reached, or the tool cannot run there or cannot run the file.
        IncompleteError: the connection was lost for good; its `comparison` holds what was measured.

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
    images: np.ndarray | None = None,
    progress: Progress = lambda line: None,
) -> Comparison:
    """Several files side by side: as `benchmark`, the files' processes in turns, so that a drift meets them alike.

    Raises:
        UsageError, KbnnError, IncompleteError: as `benchmark`.
    """
    if not paths:
        raise UsageError("nothing to benchmark: received no file; give one or more .tflite files")
    program = None if os.fspath(tool) == PYTHON else read_program(Path(tool))
    settings = Settings(threads, warmup, runs, repeats, kernel or ("default" if program else "indirect"))
    _check(settings)
    files = [_file(Path(path)) for path in paths]
    if program is None:
        for file in files:
            # The interpreter believes what a file says of itself; the tools look.
            flatbuffer.read(file.path)
    with transport(target, program).session() as place:
        found = device.describe(place)
        if program:
            device.check(program, found)
        command = install(place, program)
        check_kernel(command, settings.kernel)
        bench = _Bench(place, command, settings, images, progress)
        lost = bench.measure(files)
        if lost is None and not found.emulated:
            with contextlib.suppress(ConnectionLostError):
                found = dataclasses.replace(found, after=device.state(place))
    identity = identify(program)
    measured = zip(files, bench.measured, strict=True)
    comparison = Comparison(tuple(_report(file, identity, found, settings, each) for file, each in measured))
    if lost:
        raise IncompleteError(str(lost), comparison) from lost
    return comparison


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


@dataclasses.dataclass
class _Measured:
    """What is known of one file so far."""

    outputs: list[Output] = dataclasses.field(default_factory=list)
    operators: tuple[Operator, ...] = ()
    numerics: Numerics | None = None


class _Bench:
    """Runs the tool, and keeps what it measured while it goes on."""

    def __init__(
        self, place: Transport, command: Command, settings: Settings, images: np.ndarray | None, progress: Progress
    ) -> None:
        self.place = place
        self.command = command
        self.settings = settings
        self.images = images
        self.progress = progress
        self.measured: list[_Measured] = []

    def measure(self, files: Sequence[File]) -> ConnectionLostError | None:
        """Measures and profiles all files; returns the error that ended it early, if one did."""
        self.measured = [_Measured() for _ in files]
        try:
            self._measure(files)
        except ConnectionLostError as error:
            return error
        return None

    def _measure(self, files: Sequence[File]) -> None:
        places = [self._persist(functools.partial(self.place.put, Path(file.path))) for file in files]
        for turn in range(self.settings.repeats):
            for k, file in enumerate(files):
                self.measured[k].outputs.append(self._run(file, places[k]))
                self.progress(f"{file.path}: process {turn + 1} of {self.settings.repeats} done")
        for k, file in enumerate(files):
            if self.command.knows("enable_op_profiling"):
                self.measured[k].operators = self._run(file, places[k], profile=True).operators
                self.progress(f"{file.path}: profile done")
            if self.images is not None:
                check = functools.partial(check_numerics, self.place, self.command, self.settings, file.path, places[k])
                self.measured[k].numerics = self._persist(functools.partial(check, self.images))
                self.progress(f"{file.path}: outputs for {len(self.images)} images compared")

    def _run(self, file: File, graph: str, profile: bool = False) -> Output:
        """One process of the tool.

        Raises:
            KbnnError: the tool refused the file, crashed, ran nothing, or printed no figures.
        """
        words = self.command.measure(graph, self.settings, profile)
        done = self._persist(lambda: self.place.run(words, _PATIENCE))
        output = parse(done.stdout)
        if done.status or output.measured is None:
            raise KbnnError(f"cannot benchmark '{file.path}' on {self.place.name}: {explain(done)}")
        if output.dry_run or output.measured.count == 0:
            raise KbnnError(
                f"'{self.command.path}' made a dry run of '{file.path}' and measured nothing; use another tool"
            )
        return output

    def _persist(self, action: Callable[[], _T]) -> _T:
        """Does it again, some times, when the connection is lost meanwhile."""
        for wait in _WAITS:
            try:
                return action()
            except ConnectionLostError as error:
                self.progress(f"{error}; next attempt in {wait:g} s")
            time.sleep(wait)
            with contextlib.suppress(ConnectionLostError):
                self.place.open()
        return action()


def _report(file: File, tool: Tool, target: Target, settings: Settings, measured: _Measured) -> Report:
    runs = tuple(output.measured for output in measured.outputs if output.measured)
    operators = measured.operators
    if target.emulated:
        runs = tuple(_withheld(run) for run in runs)
        operators = tuple(Operator(operator.type, operator.count, None, None) for operator in operators)
    summary = summarize(runs)
    findings = judge(target, settings, measured.outputs, runs, summary)
    return Report(
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
        warnings=tuple(finding.text for finding in findings),
    )


def _withheld(run: Run) -> Run:
    return Run(run.count, None, None, None, None, None, None, None)


def _binary_share(operators: Sequence[Operator]) -> float | None:
    times = [(operator.type, operator.mean_ms) for operator in operators if operator.mean_ms is not None]
    total = sum(time for _, time in times)
    return sum(time for name, time in times if name.startswith("Lce")) / total if total else None
