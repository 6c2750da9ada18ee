"""Measures the memory of training: a process's peak, minus the memory after all imports.

    .venv/bin/python benchmarks/training_memory.py bireal18

Each variant (see training_step.py) trains in its own process, on one constant batch. Peak resident memory and its ratio
to that of plain Larq layers in float32 are added to results/training_memory.csv.
"""

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Sequence

import record
import training_variants
from training_variants import VARIANTS, Variant


def peak() -> float:
    """The peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train(network: str, variant: Variant, cores: Sequence[int], steps: int) -> float:
    """The increase of this process's peak memory during training, in MB."""
    training_variants.use_cores(cores)
    import plain_layers  # noqa: F401

    import kbnn.models  # noqa: F401

    imported = peak()
    model = training_variants.compiled_model(network, variant, steps_per_execution=1)
    data = training_variants.constant_data(training_variants.BATCHES[network])
    model.fit(data, steps_per_epoch=steps, verbose=0)
    return peak() - imported


def in_process(network: str, variant: Variant, cores: Sequence[int], steps: int) -> float:
    """Runs `train` in a child process."""
    command = [sys.executable, __file__, network, "--only", str(VARIANTS.index(variant)), "--steps", str(steps)]
    done = subprocess.run([*command, "--cores", *map(str, cores)], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=list(training_variants.BATCHES))
    parser.add_argument("--variants", nargs="*", default=[], help="parts of variants' names, such as kbnn or float32")
    parser.add_argument("--cores", type=int, nargs="*", default=[0, 1], help="which cores to use")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3, help="processes per variant; their median is reported")
    parser.add_argument("--dry", action="store_true", help="do not add to results/training_memory.csv")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        print(train(options.network, VARIANTS[options.only], options.cores, options.steps))
        return

    rows: list[dict[str, object]] = []
    reference = None
    for variant in training_variants.chosen(options.variants):
        runs = sorted(in_process(options.network, variant, options.cores, options.steps) for _ in range(options.runs))
        median = runs[len(runs) // 2]
        reference = reference or median
        rows.append(
            {
                **training_variants.fields(variant),
                "network": options.network,
                "batch": training_variants.BATCHES[options.network],
                "peak_mb": round(median),
                "peak_mb_low": round(runs[0]),
                "peak_mb_high": round(runs[-1]),
                "ratio": round(median / reference, 3),
            }
        )
        print(
            f"{variant!s:24}{median:8.0f} MB ({runs[0]:.0f} to {runs[-1]:.0f}), ratio {median / reference:.3f}",
            flush=True,
        )
    os.sched_setaffinity(0, options.cores)
    if not options.dry:
        print(f"added to {record.append('training_memory', rows)}")


if __name__ == "__main__":
    main()
