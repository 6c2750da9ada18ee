"""Building and converting networks leaks no memory."""

import gc
from pathlib import Path

import pytest
from tensorflow.python.framework import ops

from kbnn import converters, models, testing


def traced() -> set[str]:
    return {name for name in ops.gradient_registry._registry if name.startswith("CustomGradient-")}


def test_building_keeps_no_custom_gradient():
    before = traced()
    models.build("tiny", "react+bma", input_shape=(8, 8, 1), classes=10)
    assert traced() <= before


def resident() -> float:
    """The memory of this process in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.slow
def test_fifty_conversions_in_one_process_grow_by_under_20_mb(tmp_path: Path):
    for count in range(60):
        if count == 10:
            gc.collect()
            before = resident()
        model = models.build("tiny", "bireal", input_shape=(8, 8, 1), classes=10)
        testing.settle(model)
        converters.convert(model, tmp_path / "model.tflite", testing.normal_images(model, 4))
    gc.collect()
    assert resident() - before < 20
