"""Building and converting networks leaks no memory."""

import gc
from collections.abc import Iterator
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


@pytest.fixture
def collecting_as_usual() -> Iterator[None]:
    """Python's own thresholds of garbage collection, which users have; those of the suite collect later."""
    found = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*found)


@pytest.mark.slow
@pytest.mark.usefixtures("collecting_as_usual")
def test_fifty_conversions_in_one_process_grow_by_under_20_mb(tmp_path: Path):
    # TensorFlow's own memory grows for about thirty conversions, and stays at that.
    for count in range(80):
        if count == 30:
            gc.collect()
            before = resident()
        model = models.build("tiny", "bireal", input_shape=(8, 8, 1), classes=10)
        testing.settle(model)
        converters.convert(model, tmp_path / "model.tflite", testing.normal_images(model, 4))
    gc.collect()
    assert resident() - before < 20
