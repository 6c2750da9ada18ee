"""The lists of files in CONTRIBUTING.md are correct: the files exist and contain what the lists say."""

import inspect
import re
from pathlib import Path

import pytest

from kbnn import models, quantizers
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
