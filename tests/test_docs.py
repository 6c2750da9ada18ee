"""The documentation site builds: every page is listed, every link leads somewhere, every public name is documented."""

import os
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package laid out as it is installed, which is where the API reference looks for docstrings."""
    package = tmp_path_factory.mktemp("sources") / "kbnn"
    package.mkdir()
    for part in (*(ROOT / "kbnn").iterdir(), ROOT / "models", ROOT / "converters"):
        (package / part.name).symlink_to(part)
    return package.parent


@pytest.mark.slow
def test_the_site_builds_without_a_warning(sources: Path, tmp_path: Path):
    configuration = (ROOT / "mkdocs.yml").read_text()
    for here, there in (("build/types", sources), ("docs_dir: docs", f"docs_dir: {ROOT}/docs")):
        assert here in configuration
        configuration = configuration.replace(here, str(there))
    (tmp_path / "mkdocs.yml").write_text(configuration)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", tmp_path / "mkdocs.yml"]
    done = subprocess.run(
        [*command, "-d", tmp_path / "site"],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BinaryConv2D" in (tmp_path / "site" / "api" / "layers" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    executed = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    printed = [
        output for cell in executed.cells for output in cell.get("outputs", []) if output.get("name") == "stdout"
    ]
    assert printed
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    if path.stem == "train_and_deploy":
        shown = "".join(output["data"].get("text/html", "") for output in outputs if "data" in output)
        assert "epoch 2/2" in shown
        assert "<progress" not in shown, "the bar disappears when training has ended"
        assert "<table>" in shown


def test_a_notebook_is_committed_without_its_outputs():
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert not [cell for cell in nbformat.read(path, as_version=4).cells if cell.get("outputs")], path.name
