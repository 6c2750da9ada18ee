"""The wheel contains every file of the packages, and the README's commands run from it alone."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def sources() -> list[Path]:
    """Every file of the packages in the repository."""
    found = [path for folder in ("kbnn", "models", "converters") for path in (ROOT / folder).rglob("*")]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"]


def package_of(path: Path) -> tuple[str, str] | None:
    """The declared package that a file belongs to, and its path inside of it."""
    folders = {package: ROOT / folder for package, folder in SETUPTOOLS["package-dir"].items()}
    for package in SETUPTOOLS["packages"]:
        top, _, rest = package.partition(".")
        folders.setdefault(package, ROOT / top / rest.replace(".", "/"))
    inside = [(len(folder.parts), package) for package, folder in folders.items() if path.is_relative_to(folder)]
    if not inside:
        return None
    package = max(inside)[1]
    return package, path.relative_to(folders[package]).as_posix()


def is_declared(package: str, name: str) -> bool:
    data = SETUPTOOLS["package-data"]
    patterns = ["*.py", *data["*"], *data.get(package, [])]
    return any(name.count("/") == pattern.count("/") and fnmatch(name, pattern) for pattern in patterns)


def test_every_file_is_declared():
    declared = [path for path in sources() if (found := package_of(path)) and is_declared(*found)]
    assert [str(path) for path in sources() if path not in declared] == []


def test_every_declared_package_exists():
    folders = SETUPTOOLS["package-dir"]
    assert [folder for folder in folders.values() if not (ROOT / folder).is_dir()] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, which uses the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    install = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=300)
    # A path file makes the dependencies importable; path files of that folder, the editable install's, are not read.
    packages = sysconfig.get_path("purelib", vars={"base": str(environment)})
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    Path(packages, "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return environment / "bin"


def run(program: Path, arguments: list[str], folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a program as a user does: without the settings of the tests."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "KBNN", "TF_"))}
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, input=given, capture_output=True, text=True, timeout=900
    )


@pytest.mark.slow
def test_the_wheel_holds_every_file(installed: Path):
    (wheel,) = installed.parent.parent.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("kbnn/")}
    expected = set()
    for path in sources():
        package, name = package_of(path) or ("", "")
        expected.add(f"{package.replace('.', '/')}/{name}")
    assert held == expected


@pytest.mark.slow
def test_the_demo_runs(installed: Path, tmp_path: Path):
    done = run(installed / "kbnn", ["demo", "--json"], tmp_path)
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


def readme_commands() -> list[str]:
    """Every `kbnn` command line of the README's blocks."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("kbnn ")]


# These need a device or hours of training; `test_the_demo_runs` runs the demo.
_LEFT_OUT = ("--target", "reproduce --rows", "kbnn sweep", "kbnn demo")

# Runs command lines in one process, because each process would import TensorFlow for seconds.
COMMANDS = """
import contextlib, io, json, sys, traceback
import kbnn
from kbnn.cli import main

done = []
for arguments in json.load(sys.stdin):
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            status = 1
            traceback.print_exc()
    done.append([status, errors.getvalue()])
json.dump({"kbnn": kbnn.__file__, "done": done}, sys.stdout)
"""


def shortened(line: str) -> list[str]:
    """The command with small data, a shallow network and one epoch, so that all commands run in a minute."""
    line = line.replace("--dataset cifar10", "--dataset digits").replace(
        "resnet20-bireal-cifar10", "resnet20-bireal-digits"
    )
    arguments = shlex.split(line)[1:]
    if arguments[0] == "train" and "--epochs" in arguments:
        arguments[arguments.index("--epochs") + 1] = "1"
        arguments += ["--set", "model.options.blocks=1"]
    return arguments


@pytest.mark.slow
def test_every_command_of_the_readme_runs(installed: Path, tmp_path: Path):
    import numpy as np
    import PIL.Image

    generator = np.random.default_rng(0)
    for darkest, name in ((0, "cat"), (120, "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(100):
            image = generator.integers(darkest, darkest + 136, (40, 40, 3)).astype(np.uint8)
            PIL.Image.fromarray(image).save(tmp_path / "photos" / name / f"{k}.png")
    PIL.Image.fromarray(image).save(tmp_path / "new.jpg")
    lines = [line for line in readme_commands() if not any(part in line for part in _LEFT_OUT)]
    lines = [line for line in lines if "cifar10" not in " ".join(shortened(line))]
    done = run(installed / "python", ["-c", COMMANDS], tmp_path, json.dumps([shortened(line) for line in lines]))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["kbnn"]).is_relative_to(installed.parent), "not the wheel"
    # After one epoch, a network may miss its goals (status 1), but usage must be correct.
    failed = [
        (line, status, errors[-500:])
        for line, (status, errors) in zip(lines, found["done"], strict=True)
        if status not in (0, 1) or "Traceback" in errors
    ]
    assert failed == []


@pytest.mark.slow
def test_pretrained_files_are_there(installed: Path, tmp_path: Path):
    done = run(installed / "kbnn", ["demo", "--model", "list"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tiny-bireal-digits" in done.stdout
