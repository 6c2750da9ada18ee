"""Measures how long the largest networks take to build and convert at 224x224, and their file sizes.

    taskset -c 0,1 .venv/bin/python benchmarks/build_and_convert.py [NAME...]

Each network is built and converted in its own process; the time of imports is not counted. Processor seconds, summed
over all cores and child processes, depend less on other load than wall-clock time does.
"""

import concurrent.futures
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import record

NETWORKS = ("bireal18", "bireal34", "presb34")


def measure(name: str) -> dict[str, object]:
    """Seconds to build and to convert, the process's peak memory, and file sizes compared with the papers' count."""
    import kbnn
    from kbnn import accounting
    from kbnn.converters import convert

    start = _clocks()
    model = kbnn.models.build(name, input_shape=(224, 224, 3), classes=1000)
    built = _clocks()
    with tempfile.TemporaryDirectory() as folder:
        artifact = convert(model, Path(folder) / f"{name}.tflite")
        done = _clocks()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        small = convert(model, Path(folder) / f"{name}-int8.tflite", weights="int8")
    storage = accounting.count(model).storage_bits / 8
    return {
        "network": name,
        "build_seconds": round(built[0] - start[0], 2),
        "build_cpu_seconds": round(built[1] - start[1], 2),
        "convert_seconds": round(done[0] - built[0], 2),
        "convert_cpu_seconds": round(done[1] - built[1], 2),
        "peak_memory_mb": peak,
        "tflite_bytes": artifact.size_bytes,
        "tflite_over_counted_storage": round(artifact.size_bytes / storage, 4),
        "int8_weights_tflite_bytes": small.size_bytes,
    }


def _clocks() -> tuple[float, float]:
    times = os.times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def main(names: list[str]) -> None:
    for name in names:
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            row = process.submit(measure, name).result()
        print(row)
        record.append("build_and_convert", [row])


if __name__ == "__main__":
    main(sys.argv[1:] or list(NETWORKS))
