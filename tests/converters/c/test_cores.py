"""Exported networks and single kernels on emulated cores: results, instructions, and memory."""

import cores
import numpy as np
import pytest
import sample_networks
from compiled import Emulated, binary, check
from operators import Builder
from test_families import int8_file

from kbnn.converters import convert, export_c

CORES = [pytest.param(core, id=core.name) for core in cores.CORES]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network that fits the smallest board's 16 kB."""
    model = sample_networks.bireal(size=8, width=32)
    folder = tmp_path_factory.mktemp("cores")
    calibration = sample_networks.images(model, 64, seed=2)
    convert(
        model, folder / "model.tflite", sample_networks.images(model), calibration=calibration, device="microcontroller"
    )
    export_c(folder / "model.tflite", folder / "net", name="net")
    return folder / "net"


def needs(core):
    if core.missing is not None:
        pytest.skip(f"{core.missing} is not installed")


@pytest.mark.slow
@pytest.mark.core("cortex-m4")
@pytest.mark.parametrize("core", CORES)
def test_the_self_test_passes(core, small, tmp_path):
    needs(core)
    printed = cores.self_test(core, small, "net", tmp_path)
    assert "largest difference 0\nPASS" in printed.replace("\r", "")


def layer(*shape, **options):
    return lambda: binary(shape, options)


def convolution(*shape, **options):
    def built():
        builder = Builder(*shape)
        builder.convolution(**options)
        return builder

    return built


def prelu():
    builder = Builder(5, 7, 9)
    slopes = builder.constant(np.arange(-40, 50, 10).astype(np.int8).reshape(1, 1, 9), (1 / 60,), (0,))
    builder.add("PRELU", [builder.image, slopes], (1, 5, 7, 9), scale=0.017)
    return builder


def depthwise(*shape, **options):
    def built():
        builder = Builder(*shape)
        builder.padded([(0, 1), (1, 0), (0, 0)], -7)
        builder.depthwise(**options)
        return builder

    return built


def product():
    builder = Builder(5, 6, 7)
    gate = builder.convolution(1, size=1)
    builder.add("MUL", [builder.image, gate], (1, 5, 6, 7), scale=0.05)
    return builder


KERNELS = {
    "two pixels a word": layer(5, 7, 16, filters=33),
    "3 words": layer(5, 6, 32, filters=5, size=1),
    "6 words": layer(5, 6, 64, filters=7, size=1),
    "9 words": layer(5, 6, 40, filters=6, stride=2),
    "18 words": layer(5, 6, 64, filters=5),
    "36 words": layer(4, 5, 128, filters=34),
    "groups": layer(5, 5, 64, filters=6, groups=2),
    "odd patches in int8": convolution(6, 7, 3, filters=5),
    "short patches in int8": convolution(6, 7, 16, filters=5, size=1),
    "many weights in int8": convolution(4, 5, 20, filters=33, stride=2),
    "dilation": layer(7, 7, 40, filters=6, dilation=2),
    "exceptions": layer(12, 12, 64, filters=64),
    "PReLU": prelu,
    "depthwise": depthwise(6, 7, 9),
    "depthwise, two filters per channel": depthwise(6, 7, 4, stride=2, times=2, size=(2, 5)),
    "product": product,
    "an activation in int8": convolution(6, 7, 4, filters=6, activation=1),
}


@pytest.fixture(scope="module", params=["cortex-m4", "cortex-m55"])
def emulated(request, tmp_path_factory):
    """Cores with additional instructions: DSP, and vectors."""
    core = next(core for core in cores.CORES if core.name == request.param)
    needs(core)
    return Emulated(core, tmp_path_factory.mktemp(core.name))


@pytest.mark.slow
@pytest.mark.core("cortex-m4-9 words", "cortex-m55-9 words")
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_with_the_instructions_of_a_core(name, emulated):
    check(emulated, KERNELS[name]())


@pytest.mark.slow
def test_instructions_and_stack_are_counted_the_same_every_time(small, tmp_path):
    core = next(core for core in cores.CORES if core.name == "cortex-m4")
    needs(core)
    first, second = (cores.measure(core, small, "net", tmp_path) for _ in range(2))
    assert first == second
    assert 0 < first.stack < 1024
    assert first.flash > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("built", "limit"),
    [
        pytest.param(layer(8, 8, 64, filters=64), 0.30, id="binary 3x3"),
        pytest.param(convolution(32, 32, 3, filters=16), 1.3, id="stem"),
        pytest.param(convolution(16, 16, 16, filters=32, size=1), 1.3, id="1x1 to 32"),
        pytest.param(convolution(8, 8, 32, filters=64, size=1), 1.3, id="1x1 to 64"),
    ],
)
def test_instructions_per_mac_on_a_cortex_m4(built, limit, tmp_path):
    core = next(core for core in cores.CORES if core.name == "cortex-m4")
    needs(core)
    network, _ = cores.write_bare(built().file(), tmp_path)
    macs = sum(step.binary_macs + step.real_macs for step in network.steps)
    assert cores.measure(core, tmp_path, "net", tmp_path).instructions / macs <= limit


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="random"),
        pytest.param({"spread": 1.0}, id="random statistics"),
        pytest.param({"weights": "cifar10", "activation": "prelu"}, id="trained, with PReLUs"),
    ],
)
def test_resnet20_fits_a_small_microcontroller(options, images, tmp_path):
    core = next(core for core in cores.CORES if core.name == "cortex-m4")
    needs(core)
    file, _ = int8_file("resnet20", images, **options)
    _, planned = cores.write_bare(file, tmp_path)
    measured = cores.measure(core, tmp_path, "net", tmp_path)
    assert measured.flash <= 50_000
    assert planned.arena_bytes + 32 * 32 * 3 + 10 + measured.stack <= 24_000
