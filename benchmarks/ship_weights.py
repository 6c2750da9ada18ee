"""Packs the weights of trained runs into `kbnn/pretrained/`, with their hash, recipe and measured accuracy.

    python benchmarks/ship_weights.py --trained-at COMMIT ~/kbnn-runs/best-resnet20-cifar10-40-seed0

The weights are those of the epoch that validated best. What ships is measured: the network is built from the packed
file and evaluated on the whole test set. A network of the same name (NETWORK-METHOD-DATASET) is replaced; `--drop NAME`
removes one.
"""

import argparse
import datetime
import hashlib
import json
from pathlib import Path

import numpy as np
import record

from kbnn import files, pretrained, weights
from kbnn.models import build
from kbnn.precision import in_float32
from kbnn.training import Run, evaluate
from kbnn.training.keeper import best_epoch

FOLDER = record.ROOT / "kbnn" / "pretrained"
LIMIT = 2_000_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folders of runs, finished or not")
    arguments.add_argument("--trained-at", default=record.commit(), help="commit that trained them, if another one")
    arguments.add_argument("--drop", action="append", default=[], metavar="NAME", help="remove a network")
    arguments.add_argument("--data-dir", type=Path, help="tensorflow-datasets' data folder")
    options = arguments.parse_args()
    index = json.loads((FOLDER / pretrained.INDEX).read_text()) if (FOLDER / pretrained.INDEX).exists() else {}
    for name in options.drop:
        del index[name]
    for folder in options.runs:
        row = pack(Run.open(folder), options.trained_at, options.data_dir)
        name = f"{row['network']}-{row['method']}-{row['dataset']}"
        index[name] = row
        print(name, row, flush=True)
    files.write(FOLDER / pretrained.INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    for path in FOLDER.glob("*.npz"):
        if path.name not in {row["file"] for row in index.values()}:
            path.unlink()
    size = sum(path.stat().st_size for path in FOLDER.glob("*.npz"))
    print(f"{len(index)} networks, {size:,} bytes")
    assert size < LIMIT, size


def pack(run: Run, trained_at: str, data_dir: Path | None) -> dict[str, object]:
    """Writes the weights of a run's best epoch, and returns their row in the index."""
    which = "best" if run.has("best") else "model"
    history, data = run.history(), run.dataset(data_dir)
    trained = in_float32(run.model(which))
    path = weights.pack(trained, FOLDER)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = run.recipe.model
    rebuilt = build(settings.name, settings.method, data.input_shape, len(data.classes), path, **settings.options)
    short = path.rename(FOLDER / f"{settings.name}-{settings.method}-{data.name}-{digest[:12]}.npz")
    stage = int(history[-1]["stage"]) - 1
    last = int(history[-1]["epoch"])
    return {
        "file": short.name,
        "sha256": digest,
        "size_bytes": short.stat().st_size,
        "network": settings.name,
        "method": settings.method,
        "options": settings.options,
        "dataset": data.name,
        "input_shape": list(data.input_shape),
        "classes": list(data.classes),
        "mean": list(data.normalization.mean),
        "std": list(data.normalization.std),
        "recipe": run.recipe.name,
        "epochs": int(best_epoch(history, stage) or last) if which == "best" else last,
        "planned_epochs": run.recipe.epochs,
        "seed": run.recipe.seed,
        "test_images": data.test.size,
        "test_top1": float(np.round(evaluate(rebuilt, data).top1, 4)),
        "latent_top1": float(np.round(evaluate(trained, data).top1, 4)),
        "trained_at": trained_at,
        "packed_at": record.commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


if __name__ == "__main__":
    main()
