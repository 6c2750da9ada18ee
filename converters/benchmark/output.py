"""Parses what `lce_benchmark_model` prints on stdout.

The output comes from a device that may be faulty, so impossible figures are refused.
"""

import math
import re
from dataclasses import dataclass

from kbnn.converters.benchmark.report import Measurement, OperatorTime
from kbnn.printable import printable

_COUNT = re.compile(r"INFO: count=(?P<count>[0-9]{1,9})(?P<rest>(?: .*)?)")
_VALUE = re.compile(r"\b(?P<name>curr|min|max|avg|std|p5|median|p95)=(?P<value>\S+)")
_ALL_SAME = "(all same)"
# A process is stopped long before an inference could take 1000 s.
_LONGEST_US = 1e9
# The tool prints means with six digits, and the extremes as whole microseconds.
_MEAN_ROUNDING = 1e-5
_EXTREMES_ROUNDING_US = 1.0
_UNCONSUMED = "WARN: Unconsumed cmdline flags: "
_DRY_RUN = "INFO: Run w/o invoking kernels: [1]"
_PROFILE = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_BY_TYPE = "Summary by node type"
# Real networks have fewer types of operators, with shorter names.
_MOST_OPERATORS = 1000
_LONGEST_NAME = 200
_PROFILE_COLUMNS = 7


@dataclass(frozen=True)
class Output:
    """The figures of one process; `warmup` and `measured` are None if the tool did not get that far.

    `problem` and `profile_problem` quote impossible figures of the measurement and of the profile, which is then left
    out.
    """

    warmup: Measurement | None
    measured: Measurement | None
    operators: tuple[OperatorTime, ...]
    unconsumed: str
    dry_run: bool
    problem: str = ""
    profile_problem: str = ""


def parse(stdout: str) -> Output:
    """Parses the output of a tool.

    A last line without a line break was cut off in transit; it is ignored, because it may end in half a number.
    """
    lines = [line.rstrip() for line in stdout.split("\n")[:-1]]
    found = [match for line in lines if (match := _COUNT.fullmatch(line))][:2]
    runs, problem = [], ""
    for match in found:
        try:
            runs.append(_measurement(match))
        except ValueError as error:
            problem = problem or str(error)
            break
    operators, profile_problem = _profile(lines)
    return Output(
        warmup=runs[0] if runs else None,
        measured=runs[1] if len(runs) > 1 else None,
        operators=operators,
        unconsumed=next((_foreign(line, _UNCONSUMED) for line in lines if line.startswith(_UNCONSUMED)), ""),
        dry_run=_DRY_RUN in lines,
        problem=problem,
        profile_problem=profile_problem,
    )


def _foreign(line: str, prefix: str = "") -> str:
    return printable(line.removeprefix(prefix), longest=_LONGEST_NAME)


def _measurement(match: re.Match[str]) -> Measurement:
    """Parses a line of figures; raises ValueError for impossible ones."""
    count = int(match["count"])
    # "(all same)" follows the value without a space.
    pairs = _VALUE.findall(match["rest"].replace(_ALL_SAME, ""))
    values = {name: _microseconds(name, value) for name, value in pairs}
    is_repeated = len(values) < len(pairs)
    if "curr" in values and (count == 1 or _ALL_SAME in match["rest"]):
        # If all inferences have the same duration, the tool prints only that.
        values |= dict.fromkeys(("avg", "min", "max"), values["curr"]) | {"std": 0.0}
    if is_repeated or (count and not _is_consistent(values)):
        raise ValueError(f"'{_foreign(match[0])}'")
    return Measurement(
        count=count,
        mean_us=values.get("avg"),
        min_us=values.get("min"),
        max_us=values.get("max"),
        std_us=values.get("std"),
        p5_us=values.get("p5"),
        median_us=values.get("median"),
        p95_us=values.get("p95"),
    )


def _is_consistent(values: dict[str, float]) -> bool:
    """Whether the mean and the percentiles lie between the extremes, in ascending order."""
    if not {"min", "avg", "max"} <= values.keys():
        return False
    low = values["min"] * (1 - _MEAN_ROUNDING) - _EXTREMES_ROUNDING_US
    high = values["max"] * (1 + _MEAN_ROUNDING) + _EXTREMES_ROUNDING_US
    inner = [values[name] for name in ("p5", "median", "p95") if name in values]
    return all(low <= value <= high for value in (values["avg"], *inner)) and inner == sorted(inner)


def _microseconds(name: str, text: str) -> float:
    """A positive duration, or a standard deviation, which may also be 0."""
    value = _number(text)
    if value is None or not 0 <= value <= _LONGEST_US or (value == 0 and name != "std"):
        raise ValueError(f"'{name}={_foreign(text)}'")
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _profile(lines: list[str]) -> tuple[tuple[OperatorTime, ...], str]:
    """The rows of the profile's "Summary by node type", or else the row that is impossible.

    Types may contain commas and spaces; columns end with a tab.
    """
    starts = [index for index, line in enumerate(lines) if _PROFILE in line]
    titles = [index for index in range(starts[-1], len(lines)) if _BY_TYPE in lines[index]] if starts else []
    operators: list[OperatorTime] = []
    for line in lines[titles[0] + 2 :] if titles else []:
        columns = [column.strip() for column in line.split("\t")[1:]]
        if len(columns) != _PROFILE_COLUMNS or len(operators) == _MOST_OPERATORS:
            break
        operator = _operator(columns)
        if operator is None:
            return (), f"'{_foreign(' '.join(columns))}'"
        operators.append(operator)
    return tuple(operators), ""


def _operator(columns: list[str]) -> OperatorTime | None:
    """The row of one type of operator; None if its figures are impossible.

    The column "count" counts all operators of one type in a delegate as one; "times called" counts each of them.
    """
    name, count, mean, share = columns[:4]
    called = columns[6]
    if not (re.fullmatch("[0-9]{1,9}", count) and re.fullmatch("[0-9]{1,9}", called)):
        return None
    milliseconds, percent = _number(mean), _number(share.rstrip("%"))
    if milliseconds is None or percent is None or milliseconds < 0 or not 0 <= percent <= 100.001:
        return None
    return OperatorTime(_foreign(name), max(int(count), int(called)), milliseconds, percent / 100)
