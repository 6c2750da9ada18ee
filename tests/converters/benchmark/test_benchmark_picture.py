"""The pictures of the time per type of operator and of the latencies."""

import dataclasses
from pathlib import Path

import pytest
from benchmark_tools import replay

from kbnn.converters.benchmark import compare
from kbnn.converters.benchmark.picture import drawn, latencies, time_per_operator
from kbnn.errors import KbnnError


def test_every_operator_type_is_named(tmp_path: Path, model: Path):
    comparison = compare([model, model], tool=replay(tmp_path, "out-x86-xnn.default", "out-x86-xnn.op_profiling"))
    drawn = time_per_operator(comparison)
    text = drawn.light.decode()
    assert all(operator.type in text for operator in comparison.reports[0].operators if operator.mean_ms)
    assert "ms of one inference" in text
    assert "this machine" in drawn.caption


@pytest.mark.slow
def test_a_tool_without_profiles_gets_a_picture_of_latencies(files: dict[str, Path]):
    comparison = compare([files["binary"], files["float32"]], warmup=0, runs=2, repeats=2)
    picture = drawn(comparison)
    assert "Latency on this machine" in picture.caption
    assert all(str(path) in picture.light.decode() for path in (files["binary"], files["float32"]))


def test_withheld_latencies_cannot_be_drawn(tmp_path: Path, model: Path):
    comparison = compare([model], tool=replay(tmp_path, "out-arm.default"))
    report = dataclasses.replace(comparison.reports[0], runs=())
    with pytest.raises(KbnnError, match="latencies are withheld"):
        latencies(dataclasses.replace(comparison, reports=(report,)))


def test_without_a_profile_there_is_nothing_to_draw(tmp_path: Path, model: Path):
    with pytest.raises(KbnnError, match="no time per operator"):
        time_per_operator(compare([model], tool=replay(tmp_path, "out-arm.default")))
