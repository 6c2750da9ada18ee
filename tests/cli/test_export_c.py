"""`kbnn export-c`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kbnn.converters.c import export

sys.path.append(str(Path(__file__).parent.parent / "converters"))


KBNN = Path(sys.executable).with_name("kbnn")


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    import sample_networks

    from kbnn.converters import convert

    model = sample_networks.bireal()
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    calibration = sample_networks.images(model, 64, seed=2)
    convert(model, path, sample_networks.images(model), calibration=calibration, device="microcontroller")
    return path


def run(*arguments):
    from kbnn.cli.export_c import command

    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_file_becomes_a_folder_that_is_checked(int8, tmp_path):
    done = run(int8, "-o", tmp_path / "out", "--name", "net", "--check")
    assert done.exit_code == 0, done.stderr
    assert "bytes of arena" in done.stdout
    assert "PASS" in done.stdout
    assert "not checked: other compilers and cores" in done.stdout
    report = json.loads(run(int8, "-o", tmp_path / "out", "--name", "net", "--check", "--json").stdout)
    assert report["export"]["name"] == "net"
    assert report["check"]["passed"]


@pytest.mark.slow
def test_the_program_adds_the_operators_for_tensorflow_lite_micro(int8, tmp_path):
    """As a process, which imports everything itself."""
    command = [KBNN, "export-c", int8, "-o", tmp_path / "out", "--name", "net", "--tflm"]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout
    shipped = Path(export.__file__).parent
    for name in export.TFLM:
        assert (tmp_path / "out" / name).read_text() == (shipped / "tflm" / name).read_text()
    again = subprocess.run([*command, "--max-ram", "1000"], capture_output=True, text=True)
    assert (again.returncode, len(again.stderr.strip().splitlines())) == (1, 1)
    assert (tmp_path / "out" / "net.c").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--name", "a-b"], 2, "must be a C identifier: received 'a-b'"),
        (["--max-ram", "1000"], 1, "received a limit of 1000"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(arguments, status, said, int8, tmp_path):
    done = run(int8, "-o", tmp_path / "out", *arguments)
    assert done.exit_code == status
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_model_needs_images(tmp_path):
    done = run(tmp_path / "model.keras", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
