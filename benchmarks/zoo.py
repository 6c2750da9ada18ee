"""What every network of the zoo costs, measured: `results/zoo.csv`, and the tables in the networks' docstrings.

.venv/bin/python benchmarks/zoo.py              # measure all networks, then write the tables
.venv/bin/python benchmarks/zoo.py "presb*"     # measure these anew
"""

import inspect
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import record

from kbnn import files, tables

IMAGENET = ((224, 224, 3), 1000)
HEADING = "Networks (results/zoo.csv; parameters and MACs are binary + real):"
COUNTS = ("binary_weights", "real_parameters", "binary_macs", "real_macs", "storage_bits")


def sizes(architecture: Any) -> Iterator[tuple[tuple[int, int, int], int]]:
    """The input shapes and class counts that a network is measured at: CIFAR's and ImageNet's where it has stems."""
    own = (architecture.input_shape, architecture.classes)
    if own == IMAGENET:
        yield (32, 32, 3), 10
    yield own
    if own != IMAGENET and "stem" in architecture.options():
        yield IMAGENET


def measure(architecture: Any) -> Iterator[dict[str, object]]:
    """A row per size; the file is that of untrained weights, which has the size of any."""
    import tensorflow as tf

    from kbnn import accounting
    from kbnn.converters import convert
    from kbnn.models import build

    for shape, classes in sizes(architecture):
        tf.keras.utils.set_random_seed(0)
        model = build(architecture.name, input_shape=shape, classes=classes)
        cost = accounting.count(model)
        with tempfile.TemporaryDirectory() as folder:
            artifact = convert(model, Path(folder) / "model.tflite")
        yield {
            "network": architecture.name,
            "input": "x".join(map(str, shape)),
            "classes": classes,
            "method": architecture.method,
            **{count: getattr(cost, count) for count in COUNTS},
            "tflite_bytes": artifact.size_bytes,
        }


def table(builder: Any) -> str:
    """The table of a builder's networks, from the measured rows and the papers' figures."""
    from kbnn.models import architectures

    own = {architecture.name: architecture for architecture in architectures() if architecture.builder is builder}
    measured = sorted(record.read("zoo"), key=lambda row: (row["network"], int(row["storage_bits"])))
    rows = [_cells(row, own[row["network"]]) for row in measured if row["network"] in own]
    columns = ("network", "input", ">parameters", ">MACs", ">storage", ">.tflite", "published top-1")
    return tables.render(columns, rows)


def _cells(row: dict[str, str], architecture: Any) -> tuple[str, ...]:
    data = "ImageNet" if row["input"] == "224x224x3" else "CIFAR"
    published = [f"{name} {top1}" for name, top1 in architecture.published.items() if name.startswith(data)]
    return (
        row["network"],
        row["input"],
        f"{_short(row['binary_weights'])} + {_short(row['real_parameters'])}",
        f"{_short(row['binary_macs'])} + {_short(row['real_macs'])}",
        f"{int(row['storage_bits']) / 1e6:.2f} Mbit",
        tables.size(int(row["tflite_bytes"])),
        ", ".join(published),
    )


def _short(count: str) -> str:
    """4 significant digits: 1234567 -> 1.235M."""
    value = float(count)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.4g}{letter}"
    return count


def write_table(builder: Any) -> None:
    """Puts the table below its heading in the builder's docstring."""
    path = Path(inspect.getsourcefile(builder) or "")
    body = "".join(f"    {line}\n" for line in table(builder).splitlines())
    source, written = re.subn(
        rf"(    {re.escape(HEADING)}\n\n)(?:     .*\n)*", lambda match: match[1] + body, path.read_text()
    )
    if written != 1:
        raise SystemExit(f"error: {path.name}: found {written} headings '{HEADING}', put one into the docstring")
    files.write(path, source)


def main(pattern: str) -> None:
    from kbnn.models import architectures

    for architecture in architectures(pattern):
        rows = list(measure(architecture))
        kept = [row for row in record.read("zoo") if row["network"] != architecture.name]
        record.replace("zoo", rows, seed=0, kept=kept)
        print(*rows, sep="\n", flush=True)
    for builder in {architecture.builder for architecture in architectures()}:
        write_table(builder)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "*")
