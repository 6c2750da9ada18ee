"""Compares trained networks by accuracy, size and work as files; writes `results/frontier.csv` and its picture.

    python benchmarks/frontier.py runs/RUN...     measures the runs, then draws docs/images/frontier.png
    python benchmarks/frontier.py                 only draws

A binary network becomes two files, `kbnn convert --weights int8 --device pi4` and `kbnn convert --int8 --device
microcontroller`; a real-valued one becomes an int8 file. Each file classifies all test images. Its work is the
estimated number of instructions of one inference on a Cortex-A72 (Raspberry Pi 4), which is not a latency. A run that
is measured again replaces its rows.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import record

from kbnn import files, methods
from kbnn.analysis.pictures import COLOURS, Picture, picture
from kbnn.converters import inspect
from kbnn.converters.classifier import Classifier
from kbnn.converters.forms import INT8, INT8_TWIN, Bitpacked, Form
from kbnn.precision import in_float32
from kbnn.training import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "frontier"
PICTURE = record.ROOT / "docs" / "images" / "frontier.png"
DEVICE = "pi4"
_VERIFICATION_IMAGES = 32

Row = Mapping[str, str]

# Whether the network is binary -> its forms, under the names of the table.
FORMS: dict[bool, tuple[Form, ...]] = {
    True: (
        Bitpacked("1 bit, int8 weights", {"weights": "int8", "device": DEVICE}),
        replace(INT8, name="1 bit, int8"),
    ),
    False: (replace(INT8_TWIN, name="int8"),),
}


def measure(run: Run) -> list[dict[str, object]]:
    """A row per file of a run."""
    data, recipe = run.dataset(), run.recipe
    model = in_float32(run.model())
    calibration, inputs = data.calibration(), data.inputs(data.test)
    rows = []
    for form in FORMS[methods.get(recipe.model.method).is_binary]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            form.write(model, path, calibration[:_VERIFICATION_IMAGES], calibration)
            predicted = Classifier(path, data=data).outputs(inputs).argmax(-1)
            found = inspect(path)
        rows.append(
            {
                "run": run.folder.name,
                "network": recipe.model.name,
                "method": recipe.model.method,
                "options": str(recipe.model.options),
                "dataset": data.name,
                "epochs": len(run.history()),
                "form": form.name,
                "test_images": len(inputs),
                "top1": f"{np.mean(predicted == data.test.labels):.4f}",
                "bytes": found.size_bytes,
                "binary_macs": found.binary_macs,
                "other_macs": found.float_macs,
                "pi4_instructions": round(found.instructions[DEVICE]),
            }
        )
    return rows


def drawn(rows: Sequence[Row]) -> Picture:
    """Accuracy over bytes and over work; a line joins the files of a form, in the order of their size."""
    forms = list(dict.fromkeys(row["form"] for row in rows))

    def draw(figure: "Figure") -> None:
        by_size, by_work = figure.subplots(1, 2, sharey=True)
        for axes, measure, unit in ((by_size, "bytes", 1e3), (by_work, "pi4_instructions", 1e6)):
            for form, colour in zip(forms, COLOURS, strict=False):
                of_form = sorted((row for row in rows if row["form"] == form), key=lambda row: float(row[measure]))
                places = [float(row[measure]) / unit for row in of_form]
                heights = [100 * float(row["top1"]) for row in of_form]
                axes.plot(places, heights, "o-", color=colour, label=form)
                if form == forms[0] or form == "int8":
                    for row, place, height in zip(of_form, places, heights, strict=True):
                        axes.annotate(label(row), (place, height), (4, -11), textcoords="offset points", fontsize=7)
            axes.grid()
            axes.set_xlim(left=0)
        by_size.set(xlabel="file (kB)", ylabel="top-1 (%)")
        by_work.set(xlabel="estimated instructions on a Pi 4 (millions)")
        handles, labels = by_size.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(forms))

    images = {int(row["test_images"]) for row in rows}
    caption = (
        f"Accuracy on {max(images):,} test images of CIFAR-10 over the size of the file and over the work of one "
        f"inference: 1-bit networks and int8 networks, trained and converted by the same commands."
    )
    return picture(draw, caption, (9.0, 4.2))


def label(row: Row) -> str:
    """The network, with a * if it has options, and the number of epochs."""
    return f"{row['network']}{'' if row['options'] == '{}' else '*'}, {row['epochs']} epochs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of trained runs")
    for folder in parser.parse_args().runs:
        run = Run.open(folder)
        record.update(TABLE, measure(run), seed=run.recipe.seed, run=run.folder.name)
    rows = record.read(TABLE)
    if rows:
        files.write(PICTURE, drawn(rows).png)


if __name__ == "__main__":
    main()
