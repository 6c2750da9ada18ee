"""`kbnn demo`, run as a user would run it: from the built wheel, in an environment without the repository."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel_kbnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `kbnn` command of an environment that has the wheel and, from this one, its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=300)
    python = environment / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True, timeout=300)
    # A path file makes the dependencies importable; path files of that folder, the editable install's, are not read.
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "kbnn"


@pytest.mark.slow
def test_demo_from_the_wheel(wheel_kbnn: Path, tmp_path: Path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [wheel_kbnn, "demo", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    demo = json.loads(done.stdout)

    assert demo["test_images"] == 360
    assert demo["top1"] >= 0.97
    assert demo["file_top1"] >= 0.97
    assert len(demo["audit"]["binary_convolutions"]) == 4
    assert demo["audit"]["silent_fallbacks"] == []
    assert demo["parity"]["kernel_bits_equal"] is True
    assert demo["parity"]["samples"] == 360
    sizes = [report["file"]["size_bytes"] for report in demo["latencies"]["reports"]]
    assert sizes[0] < sizes[2] < sizes[1], "binary < int8 < float32"

    report = (tmp_path / "runs/demo/report.html").read_text()
    assert report.count("<figure>") >= 4
    assert "prefers-color-scheme: dark" in report
    assert not re.search(r'(src|href)="(?!data:)', report), "refers to something outside itself"


def test_demo_refuses_a_folder_with_content(tmp_path: Path):
    # An earlier demo's folder, to which its owner added a file.
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.toml").touch()
    (tmp_path / "precious.txt").write_text("mine")
    kbnn = Path(sys.executable).with_name("kbnn")
    done = subprocess.run([kbnn, "demo", "-o", tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"error: '{tmp_path}' is not an empty folder: choose another --output, nothing there was changed\n"
    )
    assert (tmp_path / "precious.txt").read_text() == "mine"
