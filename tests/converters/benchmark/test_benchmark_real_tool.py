"""The real lce_benchmark_model, if LCE_BENCHMARK_MODEL names one that runs on this machine."""

import os
from pathlib import Path

import numpy as np
import pytest

from kbnn.converters.benchmark import benchmark

TOOL = os.environ.get("LCE_BENCHMARK_MODEL", "")
pytestmark = pytest.mark.skipif(not TOOL, reason="LCE_BENCHMARK_MODEL names no lce_benchmark_model of LCE's releases")


@pytest.mark.parametrize("target", ["local", "qemu"])
def test_real_tool(files: dict[str, Path], target: str):
    from kbnn.converters.benchmark.program import read_program

    native = read_program(Path(TOOL)).architecture == os.uname().machine
    if native == (target == "qemu"):
        pytest.skip(f"{TOOL} is not for target '{target}'")
    images = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    report = benchmark(files["binary"], target, TOOL, runs=10, images=images)
    assert [run.count for run in report.runs] == [10] * 5
    assert "LceBconv2d" in {operator.type for operator in report.operators}
    assert report.numerics.top1_agreement == 1
