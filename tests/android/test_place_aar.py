"""The script that copies LCE's Android library to where the app's build expects it."""

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "android_demo" / "place_aar.sh"
PARTS = {"classes.jar": b"classes", "jni/arm64-v8a/libtensorflowlite_jni.so": b"\x7fELF...LceBconv2d..."}
pytestmark = pytest.mark.skipif(not shutil.which("unzip"), reason="no unzip: install it")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    shutil.copy(SCRIPT, tmp_path / "place_aar.sh")
    return tmp_path


def library(path: Path, parts: dict[str, bytes] = PARTS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def place(app: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([app / "place_aar.sh", *arguments], capture_output=True, text=True)


def test_a_library_is_copied_and_its_hash_recorded(app: Path):
    aar = library(app / "lce lite.aar")
    done = place(app, aar)
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(aar.read_bytes()).hexdigest()
    assert digest in done.stdout
    assert (app / "app/libs/lce.aar").read_bytes() == aar.read_bytes()
    assert (app / "app/libs/lce.aar.sha256").read_text().strip() == digest


def test_a_different_file_is_refused_unless_its_hash_is_given(app: Path):
    first = library(app / "first.aar")
    place(app, first)
    second = library(app / "second.aar", {**PARTS, "classes.jar": b"others"})
    assert place(app, second).returncode == 1
    assert (app / "app/libs/lce.aar").read_bytes() == first.read_bytes()
    assert place(app, second, hashlib.sha256(second.read_bytes()).hexdigest()).returncode == 0
    assert (app / "app/libs/lce.aar").read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"classes.jar": b""}, "holds no jni/arm64-v8a"),
        ({**PARTS, "jni/arm64-v8a/libtensorflowlite_jni.so": b"\x7fELF"}, "it is stock TensorFlow Lite"),
    ],
)
def test_other_libraries_are_refused(app: Path, parts: dict[str, bytes], message: str):
    done = place(app, library(app / "other.aar", parts))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (app / "app/libs/lce.aar").exists()


def test_a_web_page_is_refused(app: Path):
    page = app / "page.aar"
    page.write_text("<!DOCTYPE html>")
    done = place(app, page)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "is not an .aar" in done.stderr


def test_usage(app: Path):
    assert place(app).returncode == 2
    assert place(app, app / "missing.aar").returncode == 2
