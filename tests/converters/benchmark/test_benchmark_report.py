"""The summary of runs, by hand."""

import dataclasses

import pytest

from kbnn.converters.benchmark.report import Measurement, Summary, summarize


def run(mean: float, fastest: float) -> Measurement:
    return Measurement(50, mean, fastest, 2 * mean, 1.0, None, None, None)


def test_summary_by_hand():
    summary = summarize([run(10, 9), run(12, 8), run(11, 10), run(14, 9), run(13, 9)])
    assert dataclasses.astuple(summary)[:4] == pytest.approx((12, 8, 2, 4 / 12))
    assert summary.p95_us is None


def test_p95_is_the_median_of_the_processes():
    runs = [dataclasses.replace(run(10, 9), p95_us=p95) for p95 in (30.0, 20.0, 25.0)]
    assert summarize(runs).p95_us == 25


def test_one_run_has_no_spread():
    assert summarize([run(10, 9)]) == Summary(10, 9, 0, 0)


def test_without_measurements_the_summary_is_empty():
    assert summarize([]) == Summary(None, None, None, None)
    assert summarize([Measurement(0, *[None] * 7)]) == Summary(None, None, None, None)
