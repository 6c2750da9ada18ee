"""Measures the share of a CIFAR-10 epoch of resnet20 that the input pipeline takes, on two cores.

Alternates, in one process: training on batches from the pipeline, and the pipeline alone. Its share of the time is an
upper bound, because the pipeline runs in parallel with the training step; its share of the work is that of processor
seconds, which depend less on other load.

    taskset -c 0,1 python benchmarks/input_pipeline.py --steps 48 --rounds 5
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from record import append

from kbnn import datasets, models
from kbnn.datasets import Dataset, Transform
from kbnn.precision import precision
from kbnn.training import Learner, Stage
from kbnn.training.optimizers import optimizer

BATCH = 128
POLICIES = ("float32", "mixed_bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=48, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    data = datasets.load("cifar10", transform=Transform(pad=4, flip=True))
    append("input_pipeline", [measured(policy, data, arguments.steps, arguments.rounds) for policy in POLICIES], seed=0)


def measured(policy: str, data: Dataset, steps: int, rounds: int) -> dict[str, object]:
    """A row of results: medians over the rounds."""
    with precision(policy):
        trainer = trainer_of(data)
    batches = data.epochs(BATCH, seed=0)
    subjects: dict[str, Callable[[], object]] = {
        "training": lambda: trainer.fit(batches, steps_per_epoch=steps, verbose=0),
        "pipeline": lambda: [None for _ in batches.take(steps)],
    }
    for subject in subjects.values():
        subject()
    taken: dict[str, list[Taken]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            taken[name].append(Taken.by(subject))
    epoch = data.steps(BATCH) / steps
    row = {
        "network": "resnet20",
        "policy": policy,
        "batch": BATCH,
        "epoch_seconds": round(epoch * statistics.median(one.seconds for one in taken["training"]), 2),
        "pipeline_seconds": round(epoch * statistics.median(one.seconds for one in taken["pipeline"]), 2),
        "share_of_time": share(taken, lambda one: one.seconds),
        "share_of_work": share(taken, lambda one: one.work),
    }
    print(row)
    return row


def trainer_of(data: Dataset) -> Learner:
    network = models.build("resnet20", "bireal", data.input_shape, len(data.classes))
    stage = Stage(epochs=1)
    trainer = Learner(network)
    trainer.compile(optimizer(stage, data.steps(BATCH)), steps_per_execution=8)
    return trainer


@dataclass(frozen=True)
class Taken:
    """Wall-clock seconds, and processor seconds of all cores."""

    seconds: float
    work: float

    @staticmethod
    def by(action: Callable[[], object]) -> "Taken":
        seconds, work = time.perf_counter(), time.process_time()
        action()
        return Taken(time.perf_counter() - seconds, time.process_time() - work)


def share(taken: dict[str, list[Taken]], amount: Callable[[Taken], float]) -> float:
    """The pipeline's share, the median over rounds."""
    pairs = zip(taken["pipeline"], taken["training"], strict=True)
    return round(statistics.median(amount(pipeline) / amount(training) for pipeline, training in pairs), 4)


if __name__ == "__main__":
    main()
