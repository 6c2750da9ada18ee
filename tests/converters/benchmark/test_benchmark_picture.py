"""The picture of the time per operator type."""

from pathlib import Path

import pytest
from benchmark_tools import replay

from kbnn.converters.benchmark import compare
from kbnn.converters.benchmark.picture import time_per_operator
from kbnn.errors import KbnnError


def test_every_operator_type_is_named(tmp_path: Path, model: Path):
    comparison = compare([model, model], tool=replay(tmp_path, "out-x86-xnn.default", "out-x86-xnn.op_profiling"))
    drawn = time_per_operator(comparison)
    text = drawn.light.decode()
    assert all(operator.type in text for operator in comparison.reports[0].operators if operator.mean_ms)
    assert "ms of one inference" in text
    assert "this machine" in drawn.caption


def test_without_a_profile_there_is_nothing_to_draw(tmp_path: Path, model: Path):
    with pytest.raises(KbnnError, match="no time per operator"):
        time_per_operator(compare([model], tool=replay(tmp_path, "out-arm.default")))
