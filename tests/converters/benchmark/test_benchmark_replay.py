"""The driver with tools that replay captured outputs, on this machine."""

from pathlib import Path

import pytest
from benchmark_tools import HELP, compile_probe, emulated, replay

from kbnn.converters.benchmark import benchmark, compare
from kbnn.converters.benchmark.program import read_program
from kbnn.converters.benchmark.transports.qemu import QemuTransport
from kbnn.errors import KbnnError, UsageError


def test_figures_and_profile(tmp_path: Path, model: Path):
    report = benchmark(model, tool=replay(tmp_path, "out-arm.default", "out-arm.op_profiling"))
    assert [run.mean_us for run in report.runs] == [45865.1] * 5
    assert report.summary.median_of_means_us == 45865.1
    assert report.summary.spread == 0
    assert report.binary_share_of_time == pytest.approx(0.494, abs=0.001)
    assert sum(operator.count for operator in report.operators) == 16
    assert report.timing_valid


def test_binary_share_by_hand(tmp_path: Path, model: Path):
    report = benchmark(model, tool=replay(tmp_path, "out-arm.default", "out-arm.op_profiling"), repeats=1)
    times = {operator.type: operator.mean_ms for operator in report.operators}
    expected = (times["LceBconv2d"] + times["LceQuantize"]) / sum(times.values())
    assert report.binary_share_of_time == pytest.approx(expected)


def test_the_table_names_operators(tmp_path: Path, model: Path):
    text = str(benchmark(model, tool=replay(tmp_path, "out-x86-xnn.default", "out-x86-xnn.op_profiling")))
    assert "Convolution (NHWC, F32) IGEMM" in text


def test_fewer_runs_than_asked_for_are_flagged(tmp_path: Path, model: Path):
    report = benchmark(model, tool=replay(tmp_path, "out-arm.one_run"), runs=50)
    assert not report.timing_valid
    assert "fewer inferences than asked for: 1 instead of 50" in report.warnings


def test_unconsumed_flags_are_flagged(tmp_path: Path, model: Path):
    report = benchmark(model, tool=replay(tmp_path, "out-arm.badflag"))
    assert not report.timing_valid
    assert "the tool ignored --no_such_flag=3; use a newer one" in report.warnings


def test_dry_run_is_refused(tmp_path: Path, model: Path):
    with pytest.raises(KbnnError, match="made a dry run"):
        benchmark(model, tool=replay(tmp_path, "out-arm.dry"))


def test_the_tools_errors_are_reported(tmp_path: Path, model: Path):
    with pytest.raises(KbnnError, match="damaged or cut off"):
        benchmark(model, tool=replay(tmp_path, "out-arm.truncated", status=1))


def test_output_without_figures_is_an_error(tmp_path: Path, model: Path):
    with pytest.raises(KbnnError, match="cannot benchmark"):
        benchmark(model, tool=replay(tmp_path, "out-arm.missing", status=0))


def test_a_tool_that_cannot_select_kernels(tmp_path: Path, model: Path):
    tool = replay(tmp_path, "out-arm.default")
    help_text = [line for line in HELP.splitlines(True) if "bgemm" not in line and "bconv" not in line]
    (tmp_path / "help").write_text("".join(help_text))
    with pytest.raises(KbnnError, match="plain TensorFlow Lite tool"):
        benchmark(model, tool=tool, kernel="indirect")
    assert benchmark(model, tool=tool, kernel="default").timing_valid


def test_another_kind_of_program(model: Path, tmp_path: Path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho '  --verbose  talks'\n")
    with pytest.raises(KbnnError, match="it does not have the flags of one"):
        benchmark(model, tool=tool)


def test_a_downloaded_tool_need_not_be_executable(tmp_path: Path, model: Path):
    tool = replay(tmp_path, "out-arm.default")
    tool.chmod(0o600)
    assert benchmark(model, tool=tool, repeats=1).runs[0].count == 50
    assert tool.stat().st_mode & 0o777 == 0o600


def test_progress_is_reported(tmp_path: Path, model: Path):
    lines: list[str] = []
    compare([model, model], tool=replay(tmp_path, "out-arm.default"), repeats=2, progress=lines.append)
    assert sum("process 2 of 2 done" in line for line in lines) == 2


def test_emulated_program_runs_and_its_latency_is_withheld(tmp_path: Path, model: Path):
    report = benchmark(model, "qemu", emulated(tmp_path), runs=7)
    assert report.target.emulated
    assert report.target.architecture == "aarch64"
    assert [run.count for run in report.runs] == [7] * 5
    assert {run.mean_us for run in report.runs} == {None}
    assert report.summary.median_of_means_us is None
    assert [(operator.type, operator.mean_ms) for operator in report.operators] == [("LceBconv2d", None)]
    assert report.binary_share_of_time is None
    assert not report.timing_valid
    assert report.warnings == ("emulated: the file runs, but its latency is withheld because it is meaningless",)


def test_emulation_is_real(tmp_path: Path, model: Path):
    with QemuTransport(read_program(emulated(tmp_path))).session() as there:
        tool = there.put(there._program.path, executable=True)
        assert "Machine: aarch64, 64 bit" in there.run([tool, f"--graph={model}"], 60).stdout


def test_a_program_for_another_architecture_is_refused_here(tmp_path: Path, model: Path):
    with pytest.raises(KbnnError, match=r"it is for aarch64, the device is x86_64; the target 'qemu' emulates it"):
        benchmark(model, "local", compile_probe(tmp_path, "aarch64-linux-gnu-gcc"))


def test_scripts_cannot_be_emulated(tmp_path: Path, model: Path):
    with pytest.raises(UsageError, match="is a script"):
        benchmark(model, "qemu", replay(tmp_path, "out-arm.default"))
