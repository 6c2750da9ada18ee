"""Reasons not to trust figures, case by case."""

from dataclasses import replace

import pytest

from kbnn.converters.benchmark.judge import judge
from kbnn.converters.benchmark.output import Output
from kbnn.converters.benchmark.report import BenchmarkOptions, Measurement, State, Target, summarize

SETTINGS = BenchmarkOptions(threads=1, warmup=10, runs=50, repeats=5, kernel="default")
COOL = State(0.1, 10**9, 45.0, 0, 0, 7)
TARGET = Target("local", "a device", False, "aarch64", 64, None, None, 4, "ondemand", "glibc 2.36", COOL, COOL)


def outputs(means: list[float], count: int = 50, unconsumed: str = "") -> list[Output]:
    runs = [Measurement(count, mean, mean - 1, mean + 1, 0.1, None, None, None) for mean in means]
    return [Output(run, run, (), unconsumed, False) for run in runs]


def verdict(target: Target = TARGET, found: list[Output] | None = None) -> tuple[bool, str]:
    found = outputs([100, 101, 102, 101, 100]) if found is None else found
    runs = [output.measured for output in found]
    findings = judge(target, SETTINGS, found, runs, summarize(runs))
    return any(finding.invalidates for finding in findings), " ".join(finding.text for finding in findings)


def test_a_steady_cool_device_is_trusted():
    assert verdict() == (False, "")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (outputs([100, 101, 102, 101, 112]), "differ by 12%"),
        (outputs([100] * 5, count=49), "49 instead of 50"),
        (outputs([100] * 3), "3 of 5 processes"),
        (outputs([]), "0 of 5 processes"),
        (outputs([100] * 5, unconsumed="--use_indirect_bgemm=true"), "ignored --use_indirect_bgemm"),
    ],
    ids=["spread", "count", "lost", "nothing", "unconsumed"],
)
def test_reasons_from_the_runs(found: list[Output], message: str):
    invalid, text = verdict(found=found)
    assert invalid
    assert message in text


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (replace(TARGET, emulated=True), "emulated"),
        (replace(TARGET, word_bits=32), "32-bit operating system"),
        (replace(TARGET, before=replace(COOL, pi_throttled=0x2)), "Raspberry Pi reports throttling"),
        (replace(TARGET, after=replace(COOL, pi_throttled=0x40000)), "Raspberry Pi reports throttling"),
        (replace(TARGET, after=replace(COOL, android_thermal_status=1)), "thermal status 1"),
        (replace(TARGET, after=replace(COOL, throttle_count=8)), "processor was throttled"),
    ],
    ids=["emulated", "32 bit", "pi now", "pi meanwhile", "android", "x86"],
)
def test_reasons_from_the_device(target: Target, message: str):
    invalid, text = verdict(target)
    assert invalid
    assert message in text


def test_few_processes_show_no_spread():
    found = outputs([100] * 3)
    settings = replace(SETTINGS, repeats=3)
    runs = [output.measured for output in found]
    assert [finding.invalidates for finding in judge(TARGET, settings, found, runs, summarize(runs))] == [True]


@pytest.mark.parametrize(("repeats", "words"), [(1, "only 1 process was asked"), (2, "only 2 processes were asked")])
def test_numbers_agree_with_their_nouns(repeats: int, words: str):
    found = outputs([100] * repeats)
    settings = replace(SETTINGS, repeats=repeats)
    runs = [output.measured for output in found]
    assert words in judge(TARGET, settings, found, runs, summarize(runs))[0].text


def test_throttling_before_the_measurement_does_not_count():
    once = replace(COOL, pi_throttled=0x50000)
    assert verdict(replace(TARGET, before=once, after=once)) == (False, "")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (replace(TARGET, governor="powersave"), "governor is 'powersave'"),
        (replace(TARGET, before=replace(COOL, load=2.5)), "device was busy"),
    ],
)
def test_reasons_that_only_warn(target: Target, message: str):
    invalid, text = verdict(target)
    assert not invalid
    assert message in text
