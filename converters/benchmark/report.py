"""The reports of a benchmark: frozen dataclasses that print as tables and dump as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kbnn import tables


@dataclass(frozen=True)
class MeasuredFile:
    """The measured file; the hash identifies the bytes that the figures belong to."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Tool:
    """The program that ran the file."""

    path: str
    sha256: str


@dataclass(frozen=True)
class State:
    """The state of a target that can disturb a measurement; None for what it does not report.

    `pi_throttled` are the bits of the Raspberry Pi's firmware (0-3: now, 16-19: since the start),
    `android_thermal_status` is 0 (none) to 6, and `throttle_count` tells how often Linux on x86 has throttled a core
    since its start.
    """

    load: float | None
    memory_available_bytes: int | None
    temperature_c: float | None
    pi_throttled: int | None
    android_thermal_status: int | None
    throttle_count: int | None


@dataclass(frozen=True)
class Target:
    """Where the file ran, and its state before the first and after the last inference."""

    name: str
    description: str
    emulated: bool
    architecture: str | None
    word_bits: int | None
    system: str | None
    model: str | None
    cores: int | None
    governor: str | None
    c_library: str | None
    before: State | None
    after: State | None


@dataclass(frozen=True)
class BenchmarkOptions:
    """The options of a measurement; `flags` are more flags of the tool, such as `{"use_xnnpack": "false"}`."""

    threads: int
    warmup: int
    runs: int
    repeats: int
    kernel: str
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """The inferences of one process, in microseconds; None for figures that the tool did not print."""

    count: int
    mean_us: float | None
    min_us: float | None
    max_us: float | None
    std_us: float | None
    p5_us: float | None
    median_us: float | None
    p95_us: float | None


@dataclass(frozen=True)
class OperatorTime:
    """The time per inference of all `count` operators of one type."""

    type: str
    count: int
    mean_ms: float | None
    share: float | None


@dataclass(frozen=True)
class Summary:
    """All processes together.

    - `median_of_means_us`: the median of the processes' means, the figure to quote.
    - `min_us`: the fastest inference of all.
    - `iqr_us`: the interquartile range of the means.
    - `spread`: (slowest mean - fastest mean) / median of means.
    - `p95_us`: the median of the processes' 95th percentiles; None if the tool does not print them.
    """

    median_of_means_us: float | None
    min_us: float | None
    iqr_us: float | None
    spread: float | None
    p95_us: float | None = None


def summarize(runs: Sequence[Measurement]) -> Summary:
    """Summarizes the runs that have a mean; all figures are None if no run has one."""
    means = [run.mean_us for run in runs if run.mean_us is not None]
    if not means:
        return Summary(None, None, None, None)
    median = statistics.median(means)
    slow = [run.p95_us for run in runs if run.p95_us is not None]
    quartiles = statistics.quantiles(means, n=4, method="inclusive") if len(means) > 1 else [median] * 3
    return Summary(
        median_of_means_us=median,
        min_us=min((run.min_us for run in runs if run.min_us is not None), default=None),
        iqr_us=quartiles[2] - quartiles[0],
        spread=(max(means) - min(means)) / median if median else None,
        p95_us=statistics.median(slow) if slow else None,
    )


@dataclass(frozen=True)
class Numerics:
    """The tool's outputs compared with those of the interpreter on this machine, for real images.

    `output_range` is the difference between the largest and the smallest output, to put `max_abs_difference` in
    proportion. `top1_agreement` is that of the worst output, and 1 if no output predicts classes.
    """

    images: int
    max_abs_difference: float
    output_range: float
    top1_agreement: float


@dataclass(frozen=True)
class BenchmarkReport(tables.Shown):
    """The latency of one file on one target, and whether it can be trusted.

    `timing_valid` is False if one of the `warnings` invalidates the figures. `binary_share_of_time` is the share of the
    time that LCE's operators take (quantization, binary convolutions and pooling), None without a profile.
    """

    file: MeasuredFile
    tool: Tool
    target: Target
    settings: BenchmarkOptions
    runs: tuple[Measurement, ...]
    summary: Summary
    operators: tuple[OperatorTime, ...]
    binary_share_of_time: float | None
    numerics: Numerics | None
    timing_valid: bool
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return str(BenchmarkComparison((self,)))


@dataclass(frozen=True)
class BenchmarkComparison(tables.Shown):
    """The reports of several files that ran interleaved on the same target."""

    reports: tuple[BenchmarkReport, ...]

    def __str__(self) -> str:
        first = self.reports[0]
        lines = [f"{first.target.description}; {_settings(first.settings)}", "", _latencies(self.reports)]
        if any(report.operators for report in self.reports):
            lines += ["", _profiles(self.reports)]
        lines += [f"{report.file.path}: {_numerics(report.numerics)}" for report in self.reports if report.numerics]
        return "\n".join([*lines, *_warnings(self.reports)])


def _settings(settings: BenchmarkOptions) -> str:
    flags = "".join(f", {name}={value}" for name, value in settings.flags.items())
    return (
        f"{settings.kernel} kernel, {number(settings.threads, 'thread')}, "
        f"{number(settings.repeats, 'process')} of {number(settings.runs, 'inference')}{flags}"
    )


def number(count: int, noun: str) -> str:
    """1 process, 2 processes."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def _latencies(reports: Sequence[BenchmarkReport]) -> str:
    baseline = reports[0].summary.median_of_means_us
    rows = [
        (
            report.file.path,
            tables.size(report.file.size_bytes),
            _milliseconds(report.summary.median_of_means_us),
            _milliseconds(report.summary.min_us),
            _p95(report),
            "withheld" if report.summary.spread is None else f"{report.summary.spread:.1%}",
            _ratio(report.summary.median_of_means_us, baseline),
            "yes" if report.timing_valid else "no",
        )
        for report in reports
    ]
    return tables.render(
        ("file", ">size", ">median of means", ">fastest", ">p95", ">spread", ">against the first", ">valid"), rows
    )


def _milliseconds(microseconds: float | None) -> str:
    return "withheld" if microseconds is None else f"{microseconds / 1000:.3f} ms"


def _p95(report: BenchmarkReport) -> str:
    """Older tools print no percentiles."""
    missing = report.summary.p95_us is None and report.summary.median_of_means_us is not None
    return "not printed" if missing else _milliseconds(report.summary.p95_us)


def _ratio(mean: float | None, baseline: float | None) -> str:
    return f"{mean / baseline:.2f}x" if mean and baseline else "-"


def _warnings(reports: Sequence[BenchmarkReport]) -> list[str]:
    """Warnings that all files share, then those of single files."""
    shared = [text for text in reports[0].warnings if all(text in report.warnings for report in reports)]
    own = [f"{report.file.path}: {text}" for report in reports for text in report.warnings if text not in shared]
    return [*shared, *own]


def _numerics(numerics: Numerics) -> str:
    return (
        f"the outputs for {number(numerics.images, 'image')} differ from those on this machine by at most "
        f"{numerics.max_abs_difference:.3g} (range {numerics.output_range:.3g}); "
        f"the same class for {numerics.top1_agreement:.1%}"
    )


def _profiles(reports: Sequence[BenchmarkReport]) -> str:
    rows = [
        (
            report.file.path,
            operator.type,
            operator.count,
            "withheld" if operator.mean_ms is None else f"{operator.mean_ms:.3f} ms",
            "withheld" if operator.share is None else f"{operator.share:.1%}",
        )
        for report in reports
        for operator in report.operators
    ]
    return tables.render(("file", "operators", ">number", ">time", ">share"), rows)
