"""LCE's Python interpreter as a program with the flags and the output of `lce_benchmark_model`.

Runs in a process of its own (`python python_tool.py --graph=FILE ...`), because a damaged file can crash the
interpreter, and without TensorFlow, whose start would take longer than the measurement.
"""

import argparse
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    try:
        infer = prepare(options)
    except ValueError as error:
        print(f"ERROR: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for runs in (options.warmup_runs, options.num_runs):
        print(describe(time_inferences(infer, runs, options.max_secs)), flush=True)  # noqa: T201
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--graph", required=True, type=Path)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--warmup_runs", type=int, default=1)
    parser.add_argument("--num_runs", type=int, default=50)
    parser.add_argument("--max_secs", type=float, default=150.0)
    parser.add_argument("--use_indirect_bgemm", choices=("true", "false"), default="false")
    parser.add_argument("--use_reference_bconv", choices=("true", "false"), default="false")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> Callable[[], Any]:
    """One inference on seeded noise, as a function.

    Raises:
        ValueError: the file is damaged, or holds operators that the interpreter does not know.
    """
    content = options.graph.read_bytes()
    interpreter_class, schema = import_compute_engine()
    try:
        schema.ModelT.InitFromPackedBuf(content, 0)
    except Exception as error:
        # The interpreter does not verify offsets: it reads beyond the end of a cut-off file.
        raise ValueError("The model is not a valid Flatbuffer buffer") from error
    try:
        # XNNPACK runs the operators that are not binary; the float and int8 files of a comparison get it as well.
        interpreter = interpreter_class(
            content,
            num_threads=options.num_threads,
            use_reference_bconv=options.use_reference_bconv == "true",
            use_indirect_bgemm=options.use_indirect_bgemm == "true",
            use_xnnpack=True,
        )
    except RuntimeError as error:
        raise ValueError("Failed to construct the interpreter") from error
    noise = np.random.default_rng(0)
    inputs = [
        _noise(noise, shape, dtype)
        for shape, dtype in zip(interpreter.input_shapes, interpreter.input_types, strict=True)
    ]
    return lambda: interpreter.interpreter.predict(inputs)


def import_compute_engine() -> tuple[Any, Any]:
    """LCE's `Interpreter` class and TensorFlow Lite schema, without the converter that their package imports."""
    found = importlib.util.find_spec("larq_compute_engine")
    if found is None or found.submodule_search_locations is None:
        raise ValueError(
            "larq-compute-engine is not installed: it has no wheel for this platform, measure with LCE's own tool"
        )
    package = types.ModuleType("larq_compute_engine")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["larq_compute_engine"] = package
    from larq_compute_engine.mlir.python import tflite_schema
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    return Interpreter, tflite_schema


def _noise(generator: np.random.Generator, shape: Sequence[int], dtype: Any) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        return generator.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def time_inferences(infer: Callable[[], Any], runs: int, seconds: float) -> list[float]:
    """Microseconds of `runs` inferences, or of as many as fit into `seconds`."""
    durations: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(durations) < runs and time.perf_counter() < deadline:
        start = time.perf_counter_ns()
        infer()
        durations.append((time.perf_counter_ns() - start) / 1000)
    return durations


def describe(durations: Sequence[float]) -> str:
    """The line of figures, as the tool prints it."""
    if not durations:
        return "INFO: count=0"
    if len(durations) == 1:
        return f"INFO: count=1 curr={durations[0]:.3f}"
    p5, median, p95 = np.percentile(durations, (5, 50, 95))
    return (
        f"INFO: count={len(durations)} first={durations[0]:.3f} curr={durations[-1]:.3f} min={min(durations):.3f} "
        f"max={max(durations):.3f} avg={np.mean(durations):.3f} std={np.std(durations):.3f} "
        f"p5={p5:.3f} median={median:.3f} p95={p95:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
