"""How long the largest networks take to build and to convert at 224x224.

    taskset -c 0,1 .venv/bin/python benchmarks/build_and_convert.py [NAME...]

Each network is built and converted in a process of its own; the time of the imports is not counted.
"""

import concurrent.futures
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import record

NETWORKS = ("bireal34", "presb34")


def measure(name: str) -> dict[str, object]:
    """Seconds to build and to convert, and the process's peak memory."""
    import kbnn
    from kbnn.converters import convert

    start = time.perf_counter()
    model = kbnn.models.build(name, input_shape=(224, 224, 3), classes=1000)
    built = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        artifact = convert(model, Path(folder) / f"{name}.tflite")
    done = time.perf_counter()
    return {
        "network": name,
        "build_seconds": round(built - start, 2),
        "convert_seconds": round(done - built, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "tflite_bytes": artifact.size_bytes,
    }


def main(names: list[str]) -> None:
    for name in names:
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            row = process.submit(measure, name).result()
        print(row)
        record.append("build_and_convert", [row])


if __name__ == "__main__":
    main(sys.argv[1:] or list(NETWORKS))
