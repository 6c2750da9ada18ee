"""Reads what `lce_benchmark_model` prints on stdout."""

import re
from dataclasses import dataclass

from kbnn.converters.benchmark.report import Operator, Run

_COUNT = re.compile(r"INFO: count=(?P<count>\d+)(?P<rest>.*)")
_VALUE = re.compile(r"(?P<name>\w+)=(?P<value>[-+.\w]+)")
_UNCONSUMED = "WARN: Unconsumed cmdline flags: "
_DRY_RUN = "INFO: Run w/o invoking kernels: [1]"
_PROFILE = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_BY_TYPE = "Summary by node type"


@dataclass(frozen=True)
class Output:
    """One process's figures; `warmup` and `measured` are None where the tool did not get that far."""

    warmup: Run | None
    measured: Run | None
    operators: tuple[Operator, ...]
    unconsumed: str
    dry_run: bool


def parse(stdout: str) -> Output:
    """The figures in a tool's output.

    A last line without its line break was cut off in transit and is left out, so that no half a number is believed.
    """
    lines = [line.rstrip() for line in stdout.split("\n")[:-1]]
    runs = [_run(match) for line in lines if (match := _COUNT.fullmatch(line))]
    return Output(
        warmup=runs[0] if runs else None,
        measured=runs[1] if len(runs) > 1 else None,
        operators=_operators(lines),
        unconsumed=next((line.removeprefix(_UNCONSUMED) for line in lines if line.startswith(_UNCONSUMED)), ""),
        dry_run=_DRY_RUN in lines,
    )


def _run(match: re.Match[str]) -> Run:
    count = int(match["count"])
    # "(all same)" follows the value without a space.
    values = {name: float(value) for name, value in _VALUE.findall(match["rest"].replace("(all same)", ""))}
    if count and "avg" not in values:
        # One inference, or all of the same duration: the tool prints that duration alone.
        values |= dict.fromkeys(("avg", "min", "max"), values["curr"]) | {"std": 0.0}
    return Run(
        count=count,
        mean_us=values.get("avg"),
        min_us=values.get("min"),
        max_us=values.get("max"),
        std_us=values.get("std"),
        p5_us=values.get("p5"),
        median_us=values.get("median"),
        p95_us=values.get("p95"),
    )


def _operators(lines: list[str]) -> tuple[Operator, ...]:
    """The rows of the profile's "Summary by node type"; types may hold commas and spaces, columns end in a tab."""
    starts = [index for index, line in enumerate(lines) if _PROFILE in line]
    if not starts:
        return ()
    titles = [index for index in range(starts[-1], len(lines)) if _BY_TYPE in lines[index]]
    if not titles:
        return ()
    operators = []
    for line in lines[titles[0] + 2 :]:
        columns = [column.strip() for column in line.split("\t")[1:]]
        if len(columns) != 7:
            break
        name, count, mean, share = columns[:4]
        operators.append(Operator(name, int(count), float(mean), float(share.rstrip("%")) / 100))
    return tuple(operators)
