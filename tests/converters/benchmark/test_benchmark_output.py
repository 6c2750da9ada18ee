"""The parser of the tool's output, on captured and generated outputs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbnn.converters.benchmark.output import parse
from kbnn.converters.benchmark.report import Measurement

CAPTURED = Path(__file__).parents[2] / "fixtures" / "lce_benchmark_model"


def captured(case: str) -> str:
    return (CAPTURED / f"{case}.stdout").read_text()


def test_default_run_on_arm():
    output = parse(captured("out-arm.default"))
    assert output.warmup == Measurement(11, 45453.2, 43418, 58492, 4149, None, None, None)
    assert output.measured == Measurement(50, 45865.1, 43268, 62713, 3685, None, None, None)
    assert output.operators == ()
    assert output.unconsumed == ""
    assert not output.dry_run


def test_one_run_has_no_spread():
    assert parse(captured("out-arm.one_run")).measured == Measurement(1, 59581, 59581, 59581, 0.0, None, None, None)


def test_dry_run_has_no_figures():
    output = parse(captured("out-arm.dry"))
    assert output.dry_run
    assert output.measured == Measurement(0, None, None, None, None, None, None, None)


def test_unconsumed_flags():
    assert parse(captured("out-arm.badflag")).unconsumed == "--no_such_flag=3"


@pytest.mark.parametrize("case", ["out-arm.missing", "out-arm.truncated"])
def test_failed_run_has_no_figures(case: str):
    output = parse(captured(case))
    assert output.warmup is None
    assert output.measured is None


def test_profile_on_arm():
    operators = {operator.type: operator for operator in parse(captured("out-arm.op_profiling")).operators}
    assert operators["LceBconv2d"].count == 4
    assert operators["LceBconv2d"].share == pytest.approx(0.48897, abs=1e-3)
    assert sum(operator.share for operator in operators.values()) == pytest.approx(1, abs=1e-4)


def test_profile_types_with_commas():
    operators = {operator.type: operator for operator in parse(captured("out-x86-xnn.op_profiling")).operators}
    assert operators["Convolution (NHWC, F32) IGEMM"].count == 1
    assert operators["LceBconv2d"].count == 4


VALUES = st.floats(0.1, 1e9)


def six_digits(value: float) -> str:
    """Formats a number like a C++ stream: six significant digits, scientific from 1e6."""
    return f"{value:.6g}"


@given(st.integers(2, 10**6), st.tuples(VALUES, VALUES, VALUES, VALUES), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_statistics_lines(count: int, values: tuple[float, ...], percentiles: bool, line_break: str):
    low, mean, high = (six_digits(value) for value in sorted(values[:3]))
    deviation = six_digits(values[3])
    line = f"INFO: count={count} first={high} curr={high} min={low} max={high} avg={mean} std={deviation} unit=us"
    if percentiles:
        line += f" p5={low} median={mean} p95={high}"
    expected = Measurement(
        count,
        float(mean),
        float(low),
        float(high),
        float(deviation),
        *((float(low), float(mean), float(high)) if percentiles else (None, None, None)),
    )
    output = parse(line_break.join(["INFO: STARTING!", "INFO: count=1 curr=3", line, ""]))
    assert output.measured == expected


@given(st.integers(2, 10**6), st.integers(1, 10**9))
def test_all_equal(count: int, value: int):
    output = parse(f"INFO: count=1 curr=3\nINFO: count={count} curr={value}(all same)\n")
    assert output.measured == Measurement(count, value, value, value, 0.0, None, None, None)


@given(st.sampled_from(["out-arm.default", "out-x86-xnn.op_profiling"]), st.integers(0, 8000))
def test_truncated_output_never_yields_half_a_number(case: str, length: int):
    whole, cut = parse(captured(case)), parse(captured(case)[:length])
    assert cut.warmup in (None, whole.warmup)
    assert cut.measured in (None, whole.measured)
    assert set(cut.operators) <= set(whole.operators)


@pytest.mark.slow
@given(st.text())
def test_any_text_is_read_without_failing(text: str):
    assert parse(text).measured is None


TYPES = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), min_size=1).filter(str.strip)


@given(st.lists(TYPES, min_size=1, max_size=5))
def test_any_operator_type(names: list[str]):
    rows = [f"\t{name:>40}\t{1:>9}\t{0.25:>10.3f}\t{100 / len(names):>10.3f}%\t100.000%\t0.000\t1" for name in names]
    lines = [
        "INFO: Operator-wise Profiling Info for Regular Benchmark Runs:",
        "============================== Summary by node type ==============================",
        "\t[Node type]\t[count]\t[avg ms]\t[avg %]\t[cdf %]\t[mem KB]\t[times called]",
        *rows,
        "",
        "Timings (microseconds): count=1 curr=5394",
    ]
    operators = parse("\n".join(lines) + "\n").operators
    assert [operator.type for operator in operators] == [name.strip() for name in names]
    assert all(operator.mean_ms == 0.25 for operator in operators)
