"""Pictures of the time per type of operator, and of the latencies."""

import statistics
from typing import TYPE_CHECKING

from kbnn.analysis import pictures
from kbnn.converters.benchmark.report import BenchmarkComparison
from kbnn.errors import KbnnError
from kbnn.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# If there are more types of operators than colours, the colours repeat with hatching.
_HATCHES = ("", "//", "..")


def drawn(comparison: BenchmarkComparison) -> pictures.Picture:
    """The time per type of operator if the tool makes profiles, else the latencies.

    Raises:
        KbnnError: the latencies are withheld.
    """
    if any(operator.mean_ms for report in comparison.reports for operator in report.operators):
        return time_per_operator(comparison)
    return latencies(comparison)


def latencies(comparison: BenchmarkComparison) -> pictures.Picture:
    """One bar per file: the median of the processes' means, with the fastest and the slowest process.

    Raises:
        KbnnError: the latencies are withheld.
    """
    means = [[run.mean_us / 1000 for run in report.runs if run.mean_us] for report in comparison.reports]
    if not all(means):
        raise KbnnError("no time to draw: latencies are withheld where a device is emulated; measure on a device")
    middles = [statistics.median(each) for each in means]
    below = [middle - min(each) for middle, each in zip(middles, means, strict=True)]
    above = [max(each) - middle for middle, each in zip(middles, means, strict=True)]
    names = [printable(report.file.path) for report in comparison.reports]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.barh(range(len(names)), middles, xerr=[below, above], color=pictures.COLOURS[0], ecolor="#8b949e")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="ms of one inference")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)

    target = comparison.reports[0].target
    caption = f"Latency on {target.description}; lines from the fastest to the slowest process"
    return pictures.picture(draw, caption, (7.0, 1.4 + 0.5 * len(names)))


def time_per_operator(comparison: BenchmarkComparison) -> pictures.Picture:
    """One bar per file, divided by type of operator, in milliseconds per inference.

    Raises:
        KbnnError: there is no profile, or it is withheld.
    """
    profiles = [
        (printable(report.file.path), {o.type: o.mean_ms for o in report.operators}) for report in comparison.reports
    ]
    times = [(path, {kind: time for kind, time in profile.items() if time}) for path, profile in profiles]
    if not any(profile for _, profile in times):
        raise KbnnError("no time per operator to draw: the tool made no profile here; measure with lce_benchmark_model")
    kinds = sorted({kind for _, profile in times for kind in profile}, key=lambda kind: -_total(kind, times))
    names = [path for path, _ in times]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        left = [0.0] * len(names)
        for index, kind in enumerate(kinds):
            widths = [profile.get(kind, 0.0) for _, profile in times]
            further, colour = divmod(index, len(pictures.COLOURS))
            hatch = _HATCHES[further % len(_HATCHES)]
            axes.barh(names, widths, left=left, label=kind, color=pictures.COLOURS[colour], hatch=hatch)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel="ms of one inference")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)

    target = comparison.reports[0].target
    return pictures.picture(draw, f"Time per operator type on {target.description}", (7.0, 1.8 + 0.6 * len(names)))


def _total(kind: str, times: list[tuple[str, dict[str, float]]]) -> float:
    return sum(profile.get(kind, 0.0) for _, profile in times)
