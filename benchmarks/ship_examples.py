"""Copies converted files of trained runs into `kbnn/examples/`, with their hashes and sample images.

    python benchmarks/ship_examples.py runs/resnet20-20/bireal-seed0 runs/resnet20-20/xnor+ml+bma-seed0

Replaces the example of the same network, method and data set; the others stay. Only runs that `benchmarks/trained.py`
has measured can ship. All examples together must be smaller than 2 MB.
"""

import csv
import hashlib
import io
import sys

import numpy as np
import record

from kbnn import examples, files
from kbnn.training import Run

FOLDER = record.ROOT / "kbnn" / "examples"
PER_CLASS = 4
LIMIT = 2_000_000


def main(folders: list[str]) -> None:
    with (FOLDER / examples.INDEX).open(newline="") as index:
        shipped = {row["name"]: row for row in csv.DictReader(index)}
    for folder in folders:
        row = _ship(Run.open(folder))
        shipped[row["name"]] = row
    rows = list(shipped.values())
    for file in FOLDER.glob("*.tflite"):
        if file.name not in [row["file"] for row in rows]:
            file.unlink()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write(FOLDER / examples.INDEX, text.getvalue())
    size = sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file())
    print(f"{len(rows)} examples, {size:,} bytes")
    assert size < LIMIT, size


def _ship(run: Run) -> dict[str, str]:
    data = (run.folder / "model.tflite").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    (measured,) = (row for row in record.read("trained") if row["tflite_sha256"] == digest)
    name = f"{run.recipe.model.name}-{run.recipe.model.method}-{measured['dataset']}"
    file = f"{name}-{digest[:12]}.tflite"
    files.write(FOLDER / file, data)
    _samples(run)
    return {
        "name": name,
        "file": file,
        "sha256": digest,
        "dataset": measured["dataset"],
        "epochs": measured["epochs"],
        "test_top1": measured["tflite_top1"],
    }


def _samples(run: Run) -> None:
    """The first few test images of each class."""
    data = run.dataset()
    chosen = np.sort(
        np.concatenate([np.flatnonzero(data.test.labels == k)[:PER_CLASS] for k in range(len(data.classes))])
    )
    with files.replacing(FOLDER / f"{data.name}.npz") as temporary:
        np.savez_compressed(
            temporary,
            images=data.test.images[chosen],
            labels=data.test.labels[chosen],
            classes=np.array(data.classes),
            mean=np.array(data.normalization.mean, np.float32),
            std=np.array(data.normalization.std, np.float32),
        )


if __name__ == "__main__":
    main(sys.argv[1:])
