"""`kbnn benchmark` as a process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kbnn.cli.benchmark import command

KBNN = Path(sys.executable).with_name("kbnn")
FEW = ("--warmup", "1", "--runs", "3", "--repeats", "2")


def benchmark(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KBNN, "benchmark", *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_json_of_one_file_is_its_report(files: dict[str, Path]):
    done = benchmark(files["binary"], *FEW, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "".join(f"{files['binary']}: process {k} of 2 done\n" for k in (1, 2))
    report = json.loads(done.stdout)
    assert list(report["runs"][0]) == [
        *("count", "mean_us", "min_us", "max_us", "std_us", "p5_us", "median_us", "p95_us")
    ]
    assert list(report["summary"]) == ["median_of_means_us", "min_us", "iqr_us", "spread", "p95_us"]
    assert report["summary"]["p95_us"] > 0
    assert report["settings"]["flags"] == {}
    assert report["operators"] == []
    assert report["binary_share_of_time"] is None
    assert len(report["tool"]["sha256"]) == 64


@pytest.mark.slow
def test_flags_of_the_tool_pass_through_and_are_recorded(files: dict[str, Path], tmp_path: Path):
    picture, rows = tmp_path / "time.svg", tmp_path / "rows.csv"
    done = benchmark(files["float32"], *FEW, "--xnnpack", "off", "--json", "--picture", picture, "--csv", rows)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["flags"] == {"use_xnnpack": "false"}
    assert "use_xnnpack=false" in rows.read_text()
    assert picture.stat().st_size > 0
    refused = benchmark(files["float32"], "--flag", "use_xnnpak=false")
    assert refused.returncode == 2
    assert "did you mean use_xnnpack" in refused.stderr


@pytest.mark.slow
def test_several_files_are_a_table_and_a_list_of_reports(files: dict[str, Path]):
    done = benchmark(*files.values(), *FEW)
    assert done.returncode == 0, done.stderr
    assert "this machine" in done.stdout
    assert all(str(path) in done.stdout for path in files.values())
    reports = json.loads(benchmark(*files.values(), *FEW, "--json").stdout)["reports"]
    assert [report["file"]["path"] for report in reports] == [str(path) for path in files.values()]


@pytest.mark.slow
def test_a_flag_with_two_values_is_refused(files: dict[str, Path]):
    done = CliRunner().invoke(command, [str(files["float32"]), "--xnnpack", "on", "--flag", "use_xnnpack=false"])
    assert "the flag 'use_xnnpack' is given twice: received false and true" in done.output
    assert done.exit_code != 0


def test_a_missing_tool_names_the_option(files: dict[str, Path]):
    done = benchmark(files["binary"], "--target", "qemu")
    assert done.returncode == 2
    assert "target 'qemu' needs a tool" in done.stderr
    assert done.stderr.endswith("(here: --tool)\n")


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [(None, 2, "it does not exist"), (0, 2, "it is empty"), (0.5, 1, "truncated or damaged")],
    ids=["missing", "empty", "truncated"],
)
def test_bad_files_are_one_line(files: dict[str, Path], tmp_path: Path, part: float | None, status: int, message: str):
    path = tmp_path / "model.tflite"
    if part is not None:
        content = files["binary"].read_bytes()
        path.write_bytes(content[: int(part * len(content))])
    done = benchmark(path)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
