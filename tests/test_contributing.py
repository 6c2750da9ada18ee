"""The lists of files in CONTRIBUTING.md are correct: the files exist and contain what the lists say."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from kbnn import models, quantizers
from kbnn.converters.c import writers
from kbnn.converters.passes.pipeline import PASSES

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+(?:/|\.py|\.md|\.csv))`", TEXT))))
def test_every_listed_file_exists(path: str):
    assert (ROOT / path).exists()


def test_every_quantizer_has_a_file_that_the_package_imports():
    imports = (ROOT / "kbnn" / "quantizers" / "__init__.py").read_text()
    for name in quantizers.names():
        module = quantizers.find(name).quantizer.__module__
        if module.startswith("kbnn."):
            assert f"from {module} import" in imports, name


def test_every_network_is_registered_in_a_file_of_models():
    for architecture in models.architectures():
        if architecture.builder.__module__.startswith("kbnn."):
            assert Path(inspect.getsourcefile(architecture.builder) or "").parent == ROOT / "models", architecture.name


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_has_a_test_and_a_row(name: str):
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "converters" / "passes").glob("test_*.py"))
    assert name in tests
    assert f"`{name}`" in (ROOT / "docs" / "deployment.md").read_text()


def test_every_module_of_c_writers_is_imported_by_its_package():
    folder = ROOT / "converters" / "c" / "writers"
    modules = {path.stem for path in folder.glob("*.py") if "\n@writes(" in path.read_text()}
    assert len(modules) > 5
    assert modules <= set(writers.__all__)


def test_any_is_used_only_where_tensorflow_leaves_no_type():
    allowed = {
        *("kbnn/__init__.py", "kbnn/layers/binary_dense.py", "kbnn/methods.py", "kbnn/quantizers/base.py"),
        *("converters/graph/trace.py", "converters/tflite/flatbuffer.py", "converters/tflite/lce.py"),
    }
    files = [path for package in ("kbnn", "models", "converters") for path in (ROOT / package).rglob("*.py")]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if any(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(path.read_text())))
    }
    assert found == allowed
