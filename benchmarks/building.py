"""Measures how much faster networks build and load because Keras's inference of shapes leaves quantizers out.

    python benchmarks/building.py [NETWORK...]

Each round builds, saves and loads a network in both ways, in alternating order; the ratios of processor times, whose
medians over rounds are written to `results/building.csv`, depend little on other load.
"""

import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import record
import tensorflow as tf

from kbnn import compiled, models, structure

NETWORKS = ("resnet20", "bireal18", "presb10")
ROUNDS = 5
# Stands for `compiled` in `structure.quantize`: quantizers are traced wherever a layer is called.
TRACED = types.SimpleNamespace(inferring_shapes=lambda: False)


def measure(name: str) -> dict[str, object]:
    """Processor seconds with quantizers left out, and how many times as long it takes with them."""
    build: list[list[float]] = []
    load: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        models.build(name).save(path)
        for turn in range(ROUNDS):
            ways = [compiled, TRACED]
            seconds = {}
            for way in ways[:: 1 if turn % 2 else -1]:
                structure.compiled = way
                seconds[way is TRACED] = (_seconds(lambda: models.build(name)), _seconds(lambda: _load(path)))
            build.append([seconds[traced][0] for traced in (False, True)])
            load.append([seconds[traced][1] for traced in (False, True)])
    structure.compiled = compiled
    return {
        "network": name,
        "rounds": ROUNDS,
        "build_cpu_seconds": round(statistics.median(mine for mine, _ in build), 2),
        "build_ratio": round(statistics.median(traced / mine for mine, traced in build), 2),
        "load_cpu_seconds": round(statistics.median(mine for mine, _ in load), 2),
        "load_ratio": round(statistics.median(traced / mine for mine, traced in load), 2),
    }


def _load(path: Path) -> object:
    return tf.keras.models.load_model(path)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def main() -> None:
    for name in sys.argv[1:] or NETWORKS:
        row = measure(name)
        print(row, flush=True)
        record.append("building", [row])


if __name__ == "__main__":
    main()
