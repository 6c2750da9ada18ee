"""The frontier of accuracy, size and work."""

import io

import frontier
import numpy as np
import pytest
import record
from matplotlib.figure import Figure
from PIL import Image

from kbnn.training import Recipe, Run, train


def row(network: str, form: str, top1: float, size: int, work: int, options: str = "{}") -> dict[str, str]:
    return {
        "network": network,
        "options": options,
        "epochs": "40",
        "form": form,
        "test_images": "10000",
        "top1": str(top1),
        "bytes": str(size),
        "pi4_instructions": str(work),
    }


def test_each_form_is_a_line_through_its_files():
    rows = [
        row("large", "1 bit, int8", 0.83, 80_000, 7_000_000),
        row("small", "1 bit, int8", 0.79, 50_000, 3_000_000),
        row("resnet8", "int8", 0.85, 98_500, 13_000_000, "{'blocks': 1}"),
    ]
    picture = frontier.drawn(rows)
    with Image.open(io.BytesIO(picture.png)) as image:
        assert min(image.size) > 500
    figure = Figure(layout="constrained")
    picture.draw(figure)
    by_size, by_work = figure.axes
    (bits, int8) = by_size.lines
    np.testing.assert_allclose(bits.get_xydata(), [[50, 79], [80, 83]])
    np.testing.assert_allclose(int8.get_xydata(), [[98.5, 85]])
    np.testing.assert_allclose(by_work.lines[0].get_xydata(), [[3, 79], [7, 83]])
    assert "10,000 test images" in picture.caption
    assert frontier.label(rows[2]) == "resnet8*, 40 epochs"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "forms"), [("bnn", ["1 bit, int8 weights", "1 bit, int8"]), ("float+relu", ["int8"])]
)
def test_a_run_is_measured_in_its_forms(method: str, forms: list[str], tmp_path, monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe.of("tiny", method, "digits", epochs=1)
    run: Run = train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    rows = frontier.measure(run)
    assert [found["form"] for found in rows] == forms
    macs = {int(str(found["binary_macs"])) + int(str(found["other_macs"])) for found in rows}
    assert len(macs) == 1
    assert all(int(str(found["pi4_instructions"])) > 0 and 0 < float(str(found["top1"])) <= 1 for found in rows)
