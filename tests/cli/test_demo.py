"""`kbnn demo` changes only files that it wrote. tests/test_packaging.py runs the whole demo from the wheel."""

from pathlib import Path

from click.testing import CliRunner

from kbnn.cli import main


def test_demo_refuses_a_folder_with_content(tmp_path: Path):
    # The folder of an earlier demo, to which the user added a file.
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.toml").touch()
    (tmp_path / "precious.txt").write_text("mine")
    done = CliRunner().invoke(main, ["demo", "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: '{tmp_path}' is not an empty folder: nothing there was changed, choose another --output\n"
    )
    assert (tmp_path / "precious.txt").read_text() == "mine"
