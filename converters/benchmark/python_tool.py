"""A benchmark tool around LCE's Python interpreter, with the flags and the output of `lce_benchmark_model`.

It runs in a child process, because a damaged file can crash the interpreter. It imports only NumPy and the native
runtime, because importing TensorFlow would take longer than the measurement.
"""

import argparse
import contextlib
import importlib.machinery
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

_MOST_MEMORY = 8 * 2**30


class Interpreter(Protocol):
    """LCE's native `LiteInterpreter`."""

    input_shapes: list[list[int]]
    input_types: list[np.dtype]

    def predict(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs for one array per input."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    _limit_memory()
    try:
        interpreter = _interpreter(options)
        inputs = _inputs(options.input_layer_value_files, interpreter)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for runs in (options.warmup_runs, options.num_runs):
        durations = time_inferences(lambda: interpreter.predict(inputs), runs, options.max_secs)
        print(describe(durations), flush=True)  # noqa: T201
    if options.output_filepath:
        outputs = interpreter.predict(inputs)
        options.output_filepath.write_bytes(b"".join(np.ascontiguousarray(output).tobytes() for output in outputs))
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--runtime", required=True, type=Path, help="LCE's native Python module")
    parser.add_argument("--graph", required=True, type=Path)
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--warmup_runs", type=int, default=1)
    parser.add_argument("--num_runs", type=int, default=50)
    parser.add_argument("--max_secs", type=float, default=150.0)
    parser.add_argument("--use_indirect_bgemm", choices=("true", "false"), default="false")
    parser.add_argument("--use_reference_bconv", choices=("true", "false"), default="false")
    parser.add_argument("--use_xnnpack", choices=("true", "false"), default="true")
    parser.add_argument("--input_layer")
    parser.add_argument("--input_layer_shape")
    parser.add_argument("--input_layer_value_files", help="NAME:FILE, the raw bytes of the input")
    parser.add_argument("--output_filepath", type=Path, help="receives the raw bytes of the outputs")
    return parser.parse_args(arguments)


def _limit_memory() -> None:
    """Limits the memory that a hostile file can allocate; Windows has no such limit."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def _interpreter(options: argparse.Namespace) -> Interpreter:
    loader = importlib.machinery.ExtensionFileLoader("interpreter_wrapper_lite", str(options.runtime))
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(loader.name, loader, origin=loader.path))
    loader.exec_module(module)
    # XNNPACK runs all operators that are not binary, and all operators of float and int8 files.
    return module.LiteInterpreter(
        options.graph.read_bytes(),
        options.num_threads,
        options.use_reference_bconv == "true",
        options.use_indirect_bgemm == "true",
        options.use_xnnpack == "true",
    )


def _inputs(values: str | None, interpreter: Interpreter) -> list[np.ndarray]:
    """The only input, read from a file, or seeded noise for all inputs."""
    kinds = list(zip(interpreter.input_shapes, interpreter.input_types, strict=True))
    if values is None:
        noise = np.random.default_rng(0)
        return [_noise(noise, shape, dtype) for shape, dtype in kinds]
    [(shape, dtype)] = kinds
    return [np.frombuffer(Path(values.partition(":")[2]).read_bytes(), dtype).reshape(shape)]


def _noise(generator: np.random.Generator, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        return generator.standard_normal(shape).astype(dtype)
    if dtype not in (np.int8, np.uint8):
        # Wider integers are indices, such as those of words, which must exist in the network's table.
        return generator.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def time_inferences(infer: Callable[[], object], runs: int, seconds: float) -> list[float]:
    """The durations, in microseconds, of `runs` inferences, or of as many as fit into `seconds`."""
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
