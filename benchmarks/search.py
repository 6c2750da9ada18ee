"""Compares many small networks by accuracy, size and work after short trainings; writes `results/search.csv`.

    python benchmarks/search.py compact32 [--epochs 3] [--seed 0] [--output runs/search] [CANDIDATE...]

Each candidate is an architecture with changed options, trained with one recipe for a few epochs on CIFAR-10 and
evaluated on held-out images, never on the test set. The ranking after a few epochs is only a proxy: train the best
candidates in full. A candidate with a row is not trained again, and an interrupted one is resumed.
"""

import argparse
import dataclasses
from pathlib import Path

import record

import kbnn
from kbnn.training import Recipe, train

TABLE = "search"

# Architecture -> candidate -> options. The first one is the architecture as registered.
CANDIDATES: dict[str, dict[str, dict[str, object]]] = {
    "compact32": {
        "4+2": {},
        "3+3": {"blocks": [3, 3]},
        "6+1": {"blocks": [6, 1]},
        "3+2+1": {"filters": [32, 64, 64], "blocks": [3, 2, 1]},
        "2+1+1": {"filters": [32, 64, 128], "blocks": [2, 1, 1]},
        "4+2, stem of two": {"stem_layers": 2},
        "4+2, zeros": {"shortcut_type": "A"},
        "4+2, real 1x1": {"shortcut_type": "B"},
    },
    "compact64": {
        "3+3+1": {},
        "4+4": {"filters": [64, 128], "blocks": [4, 4]},
        "4+3+1": {"blocks": [4, 3, 1]},
        "2+2+2": {"blocks": [2, 2, 2]},
        "3+3+1, stem of two": {"stem_layers": 2},
        "3+3+1, real 1x1": {"shortcut_type": "B"},
    },
    # Stems for 224x224 on small images, where each leaves 8x8.
    "bireal18": {
        "7x7 stem, half as wide": {"stem": "imagenet", "width": 0.5},
        "quicknet stem, half as wide": {"stem": "quicknet", "width": 0.5},
        "narrow stem, half as wide": {"stem": "narrow", "width": 0.5},
        "patches stem, half as wide": {"stem": "patches", "width": 0.5},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=CANDIDATES)
    parser.add_argument("candidates", nargs="*", metavar="CANDIDATE", help="names; by default all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/search"))
    arguments = parser.parse_args()
    known = CANDIDATES[arguments.network]
    for name in arguments.candidates or known:
        if name not in known:
            parser.error(f"unknown candidate '{name}': choose from {', '.join(known)}")
        wanted = {"network": arguments.network, "candidate": name, "epochs": arguments.epochs, "seed": arguments.seed}
        if not record.is_measured(TABLE, **wanted):
            row = measure(arguments.network, name, known[name], arguments.epochs, arguments.seed, arguments.output)
            print(row, flush=True)
            record.append(TABLE, [row], seed=arguments.seed)


def recipe(network: str, options: dict[str, object], epochs: int, seed: int) -> Recipe:
    """The common recipe of all candidates, with the settings of the best ResNet-20."""
    tables = {
        "name": f"search-{network}",
        "seed": seed,
        "policy": "mixed_bfloat16",
        "data": {"name": "cifar10", "validation": 0.1, "batch": 128, "pad": 4, "flip": True},
        "model": {"name": network, "method": "bnn", "options": options},
        "stage": [{"epochs": epochs, "optimizer": "adam", "learning_rate": 0.01, "schedule": "cosine"}],
    }
    return Recipe.parse(tables)


def measure(
    network: str, name: str, options: dict[str, object], epochs: int, seed: int, output: Path
) -> dict[str, object]:
    """Trains or resumes a candidate, and returns a row with its accuracy and costs."""
    wanted = recipe(network, options, epochs, seed)
    label = name.replace(", ", "-").replace(" ", "_")
    run = train(wanted, output / f"{network}-{label}-{epochs}-seed{seed}", resume=True)
    cost = kbnn.accounting.count(run.model())
    last = run.history()[-1]
    return {
        "network": network,
        "candidate": name,
        "options": str(options),
        "epochs": epochs,
        "validation_top1": f"{last['val_accuracy']:.4f}",
        "training_top1": f"{last['accuracy']:.4f}",
        **{key: dataclasses.asdict(cost)[key] for key in ("binary_macs", "real_macs", "binary_weights")},
        "real_parameters": cost.real_parameters,
        "storage_bytes": cost.storage_bits // 8,
    }


if __name__ == "__main__":
    main()
