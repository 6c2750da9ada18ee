"""Compares the accuracy after equal trainings in mixed_bfloat16 and in float32, seed by seed.

    python benchmarks/precision.py runs/precision [--epochs 10] [--seeds 3]

Each run is a row of `kbnn reproduce cifar10-resnet20` in a child process. It is evaluated on all test images, in the
precision of its training and in float32. Writes `results/precision.csv`. Run the script again to continue.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import record

from kbnn.training import Run, evaluate

TABLE = "precision"
METHOD = "bireal"
POLICIES = ("mixed_bfloat16", "float32")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("output", type=Path, help="folder of the runs")
    arguments.add_argument("--epochs", type=int, default=10)
    arguments.add_argument("--seeds", type=int, default=3)
    options = arguments.parse_args()
    for seed in range(options.seeds):
        for policy in POLICIES:
            if not record.is_measured(TABLE, policy=policy, epochs=options.epochs, seed=seed):
                _measure(policy, options.epochs, seed, options.output / policy)


def _measure(policy: str, epochs: int, seed: int, output: Path) -> None:
    kbnn = Path(sys.executable).with_name("kbnn")
    table = ("cifar10-resnet20", "--only", METHOD, "--epochs", str(epochs), "--seeds", str(seed + 1))
    subprocess.run([kbnn, "reproduce", *table, "--precision", policy, "--output", output], check=True)
    run = Run.open(output / f"{METHOD}-seed{seed}")
    data, model = run.dataset(), run.model()
    predicted = model.predict(data.batches(data.test, 500), verbose=0).argmax(-1)
    row = {
        "network": "resnet20",
        "method": METHOD,
        "dataset": "cifar10",
        "policy": policy,
        "epochs": epochs,
        "training_loss": f"{run.history()[-1]['loss']:.4f}",
        "test_top1": f"{np.mean(predicted == data.test.labels):.4f}",
        "test_top1_in_float32": f"{evaluate(model, data).top1:.4f}",
        "test_images": data.test.size,
    }
    record.append(TABLE, [row], seed=seed)
    print(row, flush=True)


if __name__ == "__main__":
    main()
