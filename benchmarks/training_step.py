"""Measures how fast 1-bit networks train on a CPU: ratios of whole `model.fit` calls, in alternating runs.

    .venv/bin/python benchmarks/training_step.py resnet20
    .venv/bin/python benchmarks/training_step.py bireal18 --steps 4 --variants kbnn linear

Compares one architecture in plain Larq layers (float32, the reference), in kbnn's layers, and real-valued ("linear":
no activation; "relu"; "clip": kbnn's real-valued twin). All have the same optimizer and one constant batch. A round
runs each variant once, starting with a different one each time, and gives one ratio per variant. The median and the
quartiles over rounds are added to results/training_speed.csv, with the ratio of processor times, which depends less on
other load.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import record
import training_variants
from training_variants import Variant

if TYPE_CHECKING:
    import tensorflow as tf

Times = dict[Variant, list[float]]


def measure(
    models: "dict[Variant, tf.keras.Model]", data: "tf.data.Dataset", steps: int, rounds: int
) -> tuple[Times, Times]:
    """Wall-clock and processor seconds per step, for each variant and round."""
    order = list(models)
    wall, processor = ({variant: [] for variant in order} for _ in range(2))
    for turn in range(rounds):
        first = turn % len(order)
        for variant in order[first:] + order[:first]:
            start, processor_start = time.perf_counter(), time.process_time()
            models[variant].fit(data, steps_per_epoch=steps, verbose=0)
            wall[variant].append((time.perf_counter() - start) / steps)
            processor[variant].append((time.process_time() - processor_start) / steps)
        print(f"round {turn + 1}/{rounds}", flush=True)
    return wall, processor


def ratios(times: Times, reference: Variant) -> dict[Variant, tuple[float, float, float]]:
    """Speed relative to the reference: the quartiles over rounds."""
    quartiles = {}
    for variant, seconds in times.items():
        pairs = [theirs / mine for theirs, mine in zip(times[reference], seconds, strict=True)]
        low, middle, high = statistics.quantiles(pairs, n=4, method="inclusive")
        quartiles[variant] = (low, middle, high)
    return quartiles


def rows(times: Times, processor: Times, reference: Variant, **settings: object) -> list[dict[str, object]]:
    """The rows of results, one for each variant."""
    processor_ratios = ratios(processor, reference)
    return [
        {
            **training_variants.fields(variant),
            **settings,
            "ratio": round(middle, 3),
            "ratio_low": round(low, 3),
            "ratio_high": round(high, 3),
            "processor_ratio": round(processor_ratios[variant][1], 3),
            "ratio_of_fastest": round(min(times[reference]) / min(times[variant]), 3),
            "fastest_ms": round(1000 * min(times[variant]), 1),
            "median_ms": round(1000 * statistics.median(times[variant]), 1),
        }
        for variant, (low, middle, high) in ratios(times, reference).items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=list(training_variants.BATCHES))
    parser.add_argument("--variants", nargs="*", default=[], help="parts of variants' names, such as kbnn or float32")
    parser.add_argument("--cores", type=int, nargs="*", default=[0, 1], help="which cores to use")
    parser.add_argument("--steps", type=int, default=8, help="steps per run")
    parser.add_argument("--steps-per-execution", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--dry", action="store_true", help="do not add to results/training_speed.csv")
    options = parser.parse_args(arguments)

    training_variants.use_cores(options.cores)
    variants = list(training_variants.chosen(options.variants))
    models = {
        variant: training_variants.compiled_model(options.network, variant, options.steps_per_execution)
        for variant in variants
    }
    data = training_variants.constant_data(training_variants.BATCHES[options.network])
    for variant, model in models.items():
        model.fit(data, steps_per_epoch=2 * options.steps_per_execution, verbose=0)
        print(f"warm: {variant}", flush=True)
    measured = rows(
        *measure(models, data, options.steps, options.rounds),
        variants[0],
        network=options.network,
        batch=training_variants.BATCHES[options.network],
        rounds=options.rounds,
        steps=options.steps,
        steps_per_execution=options.steps_per_execution,
    )
    for row in measured:
        name, spread = f"{row['layers']}, {row['policy']}", f"({row['ratio_low']:.3f} to {row['ratio_high']:.3f})"
        rest = (
            f"fastest {row['ratio_of_fastest']:.3f}, processor {row['processor_ratio']:.3f}, {row['median_ms']:.1f} ms"
        )
        print(f"{name:24}{row['ratio']:7.3f} {spread}, {rest}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    if not options.dry:
        print(f"added to {record.append('training_speed', measured)}")


if __name__ == "__main__":
    main()
