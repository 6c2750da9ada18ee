"""Tries ways to train the best ResNet-20 better, each alone, in short trainings; writes `results/levers.csv`.

    python benchmarks/levers.py [--epochs 5] [--seed 0] [--teacher RUN] [--output runs/levers] [LEVER...]

Each lever changes a few settings of the recipe `best-resnet20-cifar10` and is compared with the recipe itself at the
same seed, by its accuracy on 5,000 held-out images, never on the test set. Gains and losses are both recorded. Few
epochs favour settings that learn fast, so a winner needs a full training before it enters a recipe. A lever with a row
is not trained again, and an interrupted one is resumed.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import record

from kbnn.training import InterruptedRunError, Recipe, catalog, train

TABLE = "levers"
RECIPE = "best-resnet20-cifar10"
NONE = "the recipe itself"

Settings = Mapping[str, object]

# Lever -> settings of the recipe by their dotted keys. `stage` replaces its only stage, by shares of the epochs.
LEVERS: dict[str, Settings] = {
    NONE: {},
    "rate 5e-3": {"stage.1.learning_rate": 5e-3},
    "rate 2e-2": {"stage.1.learning_rate": 2e-2},
    "linear schedule": {"stage.1.schedule": "linear"},
    "one cycle: warm-up for 2 of 5 epochs, then linear": {"stage.1.schedule": "linear", "stage.1.warmup": 2},
    "SGD, rate 0.1": {"stage.1.optimizer": "sgd", "stage.1.learning_rate": 0.1},
    "no activation after the addition": {"model.options.activation": "none"},
    "RPReLU after the addition": {"model.options.activation": "rprelu"},
    "learned shift before each sign (ReActNet)": {"model.method": "react"},
    "batch median before each sign (BMA)": {"model.method": "bnn+bma"},
    "learned levels (AdaBin)": {"model.method": "adabin"},
    "EDE gradient": {"model.activations": "ede"},
    "polynomial gradient (ApproxSign)": {"model.activations": "approx_sign"},
    "first half with real kernels": {"stage": ({"share": 0.4, "kernels": "real"}, {"share": 0.6})},
    "batch 64": {"data.batch": 64},
    "batch 256": {"data.batch": 256},
    "label smoothing 0.1": {"stage.1.label_smoothing": 0.1},
    "weight decay 1e-4 of real weights": {"stage.1.weight_decay": 1e-4},
    "half of the loss from a teacher": {"stage.1.distillation": {"share": 0.5, "temperature": 4.0}},
    "loss from a teacher alone": {"stage.1.distillation": {"share": 1.0, "temperature": 1.0}},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("levers", nargs="*", metavar="LEVER", help="names; by default all")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teacher", type=Path, help="run of a real-valued network, for the levers with a teacher")
    parser.add_argument("--output", type=Path, default=Path("runs/levers"))
    arguments = parser.parse_args()
    for name in arguments.levers or LEVERS:
        if name not in LEVERS:
            parser.error(f"unknown lever '{name}': choose from {', '.join(LEVERS)}")
        if record.is_measured(TABLE, lever=name, epochs=arguments.epochs, seed=arguments.seed):
            continue
        if needs_teacher(name) and arguments.teacher is None:
            print(f"skipped: '{name}' needs --teacher", flush=True)
            continue
        wanted = recipe(name, arguments.epochs, arguments.seed, arguments.teacher)
        folder = "-".join(name.replace(":", "").replace(",", "").replace("(", "").replace(")", "").split())
        try:
            run = train(wanted, arguments.output / f"{folder}-{arguments.epochs}-seed{arguments.seed}", resume=True)
        except InterruptedRunError as error:
            print(f"{error} with the same command", flush=True)
            return error.exit_status
        last = run.history()[-1]
        row = {
            "lever": name,
            "settings": str(LEVERS[name]),
            "epochs": arguments.epochs,
            "validation_top1": f"{last['val_accuracy']:.4f}",
            "training_top1": f"{last['accuracy']:.4f}",
        }
        print(row, flush=True)
        record.append(TABLE, [row], seed=arguments.seed)
    return 0


def needs_teacher(name: str) -> bool:
    return any(key.endswith("distillation") for key in LEVERS[name])


def recipe(name: str, epochs: int, seed: int, teacher: Path | None = None) -> Recipe:
    """The recipe with a lever's settings, for a number of epochs."""
    settings = dict(LEVERS[name])
    parts = settings.pop("stage", ({"share": 1.0},))
    if needs_teacher(name):
        key = "stage.1.distillation"
        settings[key] = {**settings[key], "teacher": str(teacher)}
    base = catalog.find(RECIPE).changed({"seed": seed, "data.validation": 0.1}).shortened(epochs)
    (stage,) = (stage.model_dump(mode="json", exclude_none=True) for stage in base.stage)
    stages = []
    for part in parts:
        changes = {key: value for key, value in part.items() if key != "share"}
        stages.append({**stage, "epochs": max(1, round(part["share"] * epochs)), **changes})
    return base.changed({"stage": stages}).changed(settings)


if __name__ == "__main__":
    raise SystemExit(main())
