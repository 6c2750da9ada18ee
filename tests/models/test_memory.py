"""Building and converting networks leaks no memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from tensorflow.python.framework import ops

from kbnn import models


def traced() -> set[str]:
    return {name for name in ops.gradient_registry._registry if name.startswith("CustomGradient-")}


def test_building_keeps_no_custom_gradient():
    before = traced()
    models.build("tiny", "react+bma", input_shape=(8, 8, 1), classes=10)
    assert traced() <= before


# TensorFlow's own memory grows for about thirty conversions, and stays at that.
CONVERSIONS = """
import ctypes, gc, sys
from pathlib import Path

from kbnn import converters, models, testing

def resident():
    gc.collect()
    # Memory that the C library keeps for reuse is no leak, and differs by 20 MB from call to call.
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

for count in range(80):
    if count == 30:
        before = resident()
    model = models.build("tiny", "bireal", input_shape=(8, 8, 1), classes=10)
    testing.settle(model)
    converters.convert(model, sys.argv[1], testing.normal_images(model, 4))
print(resident() - before)
"""


@pytest.mark.slow
def test_fifty_conversions_in_one_process_grow_by_under_20_mb(tmp_path: Path):
    """In a process of its own: in one of the suite's, the memory of earlier tests moves the figure."""
    command = [sys.executable, "-c", CONVERSIONS, tmp_path / "model.tflite"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(output.split()[-1]) < 20
