"""Exported networks on emulated cores: their self-tests pass, and what they cost stays within what is promised."""

import cores
import pytest
import sample_networks

from kbnn.converters import convert, export_c

CORES = [pytest.param(core, id=core.name) for core in cores.CORES]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network that fits the smallest board's 16 kB."""
    model = sample_networks.bireal(size=8, width=32)
    folder = tmp_path_factory.mktemp("cores")
    calibration = sample_networks.images(model, 64, seed=2)
    convert(model, folder / "model.tflite", sample_networks.images(model), calibration=calibration)
    export_c(folder / "model.tflite", folder / "net", name="net")
    return folder / "net"


def needs(core):
    if core.missing is not None:
        pytest.skip(f"{core.missing} is not installed")


@pytest.mark.parametrize("core", CORES)
def test_the_self_test_passes(core, small, tmp_path):
    needs(core)
    printed = cores.self_test(core, small, "net", tmp_path)
    assert "largest difference 0\nPASS" in printed.replace("\r", "")


def test_instructions_and_stack_are_counted_the_same_every_time(small, tmp_path):
    core = next(core for core in cores.CORES if core.name == "cortex-m4")
    needs(core)
    first, second = (cores.measure(core, small, "net", tmp_path) for _ in range(2))
    assert first == second
    assert 0 < first.stack < 1024
    assert first.flash > 0
