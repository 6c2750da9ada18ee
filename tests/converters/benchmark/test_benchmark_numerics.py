"""Compares the outputs of a device with those of this machine; here the device is this machine, too."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmark_tools import emulated, replay

from kbnn.converters.benchmark import benchmark, python_tool
from kbnn.converters.tflite import flatbuffer, interpreter, lce
from kbnn.errors import KbnnError, UsageError


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 8, 8, 3)).astype(np.float32)


def once(path: Path, **options: object):
    return benchmark(path, repeats=1, runs=1, warmup=0, **options)


@pytest.mark.slow
def test_outputs_are_equal(files: dict[str, Path], images: np.ndarray):
    numerics = once(files["binary"], images=images).numerics
    assert numerics.images == 3
    assert numerics.max_abs_difference <= 1e-4 * numerics.output_range
    assert numerics.output_range > 0
    assert numerics.top1_agreement == 1


@pytest.mark.slow
def test_a_wrong_output_is_seen(files: dict[str, Path], images: np.ndarray, tmp_path: Path):
    words = shlex.join([sys.executable, python_tool.__file__, f"--runtime={lce.runtime_path()}"])
    tool = tmp_path / "tool"
    # Four zeros instead of the outputs.
    tool.write_text(
        f'#!/bin/sh\n{words} "$@"; status=$?\n[ -e output.bin ] && head -c 16 /dev/zero >output.bin\nexit $status\n'
    )
    numerics = once(files["binary"], tool=tool, images=images).numerics
    assert numerics.max_abs_difference > 0.1 * numerics.output_range


@pytest.mark.slow
def test_outputs_of_another_size_are_an_error(files: dict[str, Path], images: np.ndarray, tmp_path: Path):
    words = shlex.join([sys.executable, python_tool.__file__, f"--runtime={lce.runtime_path()}"])
    tool = tmp_path / "tool"
    tool.write_text(f'#!/bin/sh\n{words} "$@"; status=$?\n[ -e output.bin ] && echo >>output.bin\nexit $status\n')
    with pytest.raises(KbnnError, match="gave outputs of another size"):
        once(files["binary"], tool=tool, images=images)


def test_a_tool_that_writes_no_outputs(files: dict[str, Path], images: np.ndarray, tmp_path: Path):
    with pytest.raises(KbnnError, match="has no --input_layer"):
        once(files["binary"], tool=replay(tmp_path, "out-arm.default"), images=images)


def test_images_are_checked_before_anything_is_measured(files: dict[str, Path], images: np.ndarray):
    lines: list[str] = []
    with pytest.raises(UsageError, match="images do not fit"):
        once(files["binary"], images=images[:, :4], progress=lines.append)
    assert lines == []


@pytest.mark.parametrize(
    ("dtype", "extremes"), [("int32", (0, 1)), ("int64", (0, 1)), ("bool", (0, 1)), ("int8", (-128, 127))]
)
def test_inputs_of_a_file_without_images(dtype: str, extremes: tuple[int, int]):
    """A table of words may have two rows only."""
    values = python_tool._noise(np.random.default_rng(0), (1, 10_000), np.dtype(dtype))
    assert (values.dtype, values.shape) == (dtype, (1, 10_000))
    assert (int(values.min()), int(values.max())) == extremes


def test_outputs_of_an_int8_file_are_compared_as_real_values(files: dict[str, Path], images: np.ndarray):
    file = flatbuffer.read(files["int8"])
    (given,), (returned,) = file.inputs.values(), file.outputs.values()
    assert (given.dtype, returned.dtype) == ("int8", "int8")
    scale, zero_point = given.scales[0], given.zero_points[0]
    levels = np.clip(np.round(images / scale) + zero_point, -128, 127).astype(np.int8)
    outputs = interpreter.run(file.data, [levels])[0].astype(np.float64) * returned.scales[0]
    numerics = once(files["int8"], images=images).numerics
    # The tool's own kernels for int8 may round another way, by a step.
    assert numerics.max_abs_difference <= 1.001 * returned.scales[0]
    assert numerics.output_range == pytest.approx(outputs.max() - outputs.min(), rel=1e-5)


@pytest.mark.parametrize("wrong", [np.zeros((1, 4, 4, 3), np.float32), np.zeros((1, 8, 8, 3), np.int8)])
def test_images_that_do_not_fit(files: dict[str, Path], wrong: np.ndarray):
    with pytest.raises(UsageError, match="images do not fit"):
        once(files["binary"], images=wrong)


def test_images_and_outputs_reach_an_emulated_device_and_come_back(
    files: dict[str, Path], images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The program's "inference" counts the bits in which file and image differ: computed by ARM code, and here."""
    file = np.frombuffer(files["binary"].read_bytes(), np.uint8)
    repeated = [np.resize(np.frombuffer(image.tobytes(), np.uint8), file.size) for image in images]
    known = np.array([[np.unpackbits(file ^ image).sum()] for image in repeated], np.uint32)
    monkeypatch.setattr(interpreter, "run", lambda *_: [known])
    numerics = once(files["binary"], target="qemu", tool=emulated(tmp_path), images=images).numerics
    assert (numerics.images, numerics.max_abs_difference) == (3, 0)
    assert numerics.output_range > 0


def test_outputs_are_computed_with_the_flags_of_the_measurement(
    files: dict[str, Path], images: np.ndarray, tmp_path: Path
):
    words = shlex.join([sys.executable, python_tool.__file__, f"--runtime={lce.runtime_path()}"])
    tool, seen = tmp_path / "tool", tmp_path / "seen"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexec {words} "$@"\n')
    once(files["float32"], tool=tool, images=images[:1], flags={"use_xnnpack": "false"})
    runs = [line for line in seen.read_text().splitlines() if "--graph" in line]
    assert len(runs) == 2
    assert all("--use_xnnpack=false" in run for run in runs)
