"""Files run by the Python interpreter on this machine."""

from pathlib import Path

import pytest
from benchmark_tools import replay

import kbnn
from kbnn.converters.benchmark import compare
from kbnn.converters.benchmark.driver import Job, compare_jobs
from kbnn.converters.benchmark.report import BenchmarkOptions
from kbnn.errors import KbnnError, UsageError

FEW = {"warmup": 1, "runs": 3, "repeats": 2}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [None, "default", "indirect", "reference"])
def test_one_file(files: dict[str, Path], kernel: str | None):
    report = kbnn.converters.benchmark(files["binary"], kernel=kernel, **FEW)
    assert [run.count for run in report.runs] == [3, 3]
    for run in report.runs:
        assert 0 < run.min_us <= run.p5_us <= run.median_us <= run.p95_us <= run.max_us
        assert run.min_us <= run.mean_us <= run.max_us
    assert report.summary.min_us == min(run.min_us for run in report.runs)
    assert report.settings.kernel == (kernel or "indirect")
    assert report.file.size_bytes == files["binary"].stat().st_size
    assert "this machine" in report.target.description


@pytest.mark.slow
def test_files_side_by_side(files: dict[str, Path]):
    comparison = compare(list(files.values()), **FEW)
    assert [report.file.path for report in comparison.reports] == [str(path) for path in files.values()]
    assert all(str(path) in str(comparison) for path in files.values())
    assert all(run.mean_us > 0 for report in comparison.reports for run in report.runs)


@pytest.mark.slow
def test_the_same_file_twice_is_two_reports(files: dict[str, Path]):
    comparison = compare([files["binary"], files["binary"]], **FEW)
    assert [len(report.runs) for report in comparison.reports] == [2, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "it does not exist"),
        (b"", "it is empty"),
        (b"not a model at all", "is not a TensorFlow Lite file"),
    ],
)
def test_files_that_cannot_be_benchmarked(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "model.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        kbnn.converters.benchmark(path)


def test_a_temporary_file_is_called_by_its_name(files: dict[str, Path], tmp_path: Path):
    lines: list[str] = []
    job = Job(files["binary"], BenchmarkOptions(1, 1, 1, 1, "default"), "int8 weights")
    comparison = compare_jobs([job], "local", replay(tmp_path, "out-arm.default"), progress=lines.append)
    assert [report.file.path for report in comparison.reports] == ["int8 weights"]
    assert lines
    assert all(line.startswith("int8 weights: ") for line in lines)
    # A tool that fails and mentions the file.
    failing = replay(tmp_path, "out-arm.default", before='echo "ERROR: cannot map $1 $2 $3 $4 $5 $6" >&2; exit 1')
    with pytest.raises(KbnnError, match=r"^cannot benchmark 'int8 weights' on .*cannot map .*int8 weights") as caught:
        compare_jobs([job], "local", failing)
    assert str(files["binary"].parent) not in str(caught.value)
    with pytest.raises(UsageError, match="cannot benchmark 'float': it does not exist"):
        compare_jobs([Job(tmp_path / "gone.tflite", job.settings, "float")], "local", "python")


@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_truncated_file(files: dict[str, Path], tmp_path: Path, part: float):
    content = files["binary"].read_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(KbnnError, match="truncated or damaged"):
        kbnn.converters.benchmark(path)


def test_operators_that_the_interpreter_does_not_have(files: dict[str, Path], tmp_path: Path):
    content = files["binary"].read_bytes()
    assert b"LceQuantize" in content
    path = tmp_path / "model.tflite"
    path.write_bytes(content.replace(b"LceQuantize", b"LceQuestion"))
    with pytest.raises(KbnnError, match="LceQuestion"):
        kbnn.converters.benchmark(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "locla"}, "did you mean local"),
        ({"tool": "pyhton"}, "no benchmark tool at 'pyhton'"),
        ({"target": "qemu"}, "target 'qemu' needs a tool"),
        ({"target": "qemu:aarch64"}, "unknown benchmark target"),
        ({"kernel": "indirekt"}, "did you mean indirect"),
        ({"runs": 0}, "runs must be at least 1"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"warmup": -1}, "warmup must be at least 0"),
    ],
)
def test_arguments_out_of_range(files: dict[str, Path], arguments: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        kbnn.converters.benchmark(files["binary"], **arguments)
