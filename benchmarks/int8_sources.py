"""Finds which rounding changes a trained network's predictions; writes `results/int8_sources.csv`.

Rounds one kind of value at a time in the deployed graph, with everything else in float, and compares its predictions
with those of the graph without rounding. To show how sensitive the network itself is, the unrounded graph also runs on
images with noise of up to a given number of grey levels.

    python benchmarks/int8_sources.py runs/RUN...
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import record
import tensorflow as tf

from kbnn.converters.graph.graph import Graph, Limits, Node
from kbnn.converters.graph.operations import Add, Affine, Clip, Convolution, Dense, Input, Maximum, Operation, Sign
from kbnn.converters.graph.rounding import rounded_kernel
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy, with_passes
from kbnn.converters.passes.int8 import calibrated, in_int8
from kbnn.converters.tflite.int8_weights import small_stem
from kbnn.converters.verify.verification import inputs_by_name
from kbnn.precision import in_float32
from kbnn.training.run import Run

TABLE = "int8_sources"
_NOISE = (0.5, 0.1, 0.02, 0.004, 0.0008)
_BITS = (10, 12, 16)
_BATCH = 250

Kinds = Mapping[str, Callable[[Node], bool]]


def variants(graph: Graph, limits: Mapping[str, Limits], calibration: np.ndarray) -> Iterator[tuple[str, Graph]]:
    """The graph with each kind of weight or value rounded alone, then with all of them rounded."""
    rounded = in_int8(graph, limits)
    stem = small_stem(graph)
    yield from _weights(graph, stem)
    kinds: Kinds = {
        "int8: image": lambda node: isinstance(node.operation, Input),
        "int8: stem's output": lambda node: node.layer in stem or node.name in stem,
        "int8: normalized outputs of binary convolutions": lambda node: _is_normalized(graph, node),
        "int8: sums": lambda node: isinstance(node.operation, Add),
        "int8: PReLUs": lambda node: isinstance(node.operation, Maximum | Clip),
    }
    for what, is_kind in kinds.items():
        yield (
            what,
            graph.with_nodes(
                *(replace(rounded[node.name], operation=node.operation) for node in graph if is_kind(node))
            ),
        )
    yield "int8: all", rounded
    yield "int8: all, thresholds as in float on calibration images", _with_thresholds(graph, rounded, calibration)
    for bits in _BITS:
        yield f"all activations in {bits} bits, weights in float", _finer(graph, rounded, bits)


def _weights(graph: Graph, stem: tuple[str, ...]) -> Iterator[tuple[str, Graph]]:
    kinds: Kinds = {
        "stem": lambda node: node.layer in stem,
        "shortcuts": lambda node: node.layer not in stem and isinstance(node.operation, Convolution),
        "classifier": lambda node: isinstance(node.operation, Dense),
    }
    for what, is_kind in kinds.items():
        for bits in (8, 16):
            found = [n for n in graph if isinstance(n.operation, Convolution | Dense) and is_kind(n)]
            yield f"weights of {what} in {bits} bits", graph.with_nodes(*(_with_weights(n, bits) for n in found))


def _with_weights(node: Node, bits: int) -> Node:
    kernel = rounded_kernel(np.asarray(node.operation.kernel, np.float32), bits)  # type: ignore[attr-defined]
    return replace(node, operation=replace(node.operation, kernel=kernel))  # type: ignore[type-var]


def _is_normalized(graph: Graph, node: Node) -> bool:
    return isinstance(node.operation, Affine) and any(map(_is_sum, graph.consumers(node.name)))


def _is_sum(node: Node) -> bool:
    return isinstance(node.operation, Add)


def _finer(graph: Graph, rounded: Graph, bits: int) -> Graph:
    """The graph with every activation rounded between the same limits, to more levels."""
    nodes = [node for node in graph if rounded[node.name].limits and not isinstance(node.operation, Input)]
    return graph.with_nodes(
        *(replace(n, operation=_Levels(n.operation, rounded[n.name].limits or (0.0, 1.0), bits)) for n in nodes)
    )


@dataclass(frozen=True, eq=False)
class _Levels(Operation):
    """An operation whose value is rounded to 2^bits levels."""

    operation: Operation
    limits: Limits
    bits: int

    def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
        return tf.quantization.fake_quant_with_min_max_args(self.operation(*inputs), *self.limits, num_bits=self.bits)


def _with_thresholds(graph: Graph, rounded: Graph, images: np.ndarray) -> Graph:
    """The rounded graph with a threshold per channel before each sign, which makes +1 as frequent as without rounding.

    Thresholds are found layer by layer, from values computed with the corrections of all earlier layers.
    """
    wanted: dict[str, np.ndarray] = {}
    shifts: dict[str, np.ndarray] = {}

    def remember(node: Node, value: tf.Tensor) -> tf.Tensor:
        wanted[node.name] = np.mean(value.numpy() >= 0, axis=(0, 1, 2))
        return value

    def correct(node: Node, value: tf.Tensor) -> tf.Tensor:
        values = value.numpy().reshape(-1, value.shape[-1])
        share = wanted[node.name]
        found = np.array([np.quantile(channel, 1 - p) for channel, p in zip(values.T, share, strict=True)])
        # A quantile of few levels may be further off than the threshold 0.
        errors = [np.abs(np.mean(values >= threshold, axis=0) - share) for threshold in (found, np.zeros_like(found))]
        shifts[node.name] = np.where(errors[0] < errors[1], -found, 0.0)
        return value + tf.constant(shifts[node.name], tf.float32)

    _run_with_hook(graph, images, remember)
    _run_with_hook(rounded, images, correct)
    nodes = []
    for sign in [node for node in rounded if isinstance(node.operation, Sign)]:
        shift = replace(sign, name=f"{sign.name}/threshold", operation=Affine.shift(shifts[sign.name]), origin=None)
        nodes += [shift, replace(sign, inputs=(shift.name,))]
    return rounded.with_nodes(*nodes)


def _run_with_hook(graph: Graph, images: np.ndarray, hook: Callable[[Node, tf.Tensor], tf.Tensor]) -> None:
    """Runs a graph and lets `hook` replace what each sign reads; values are dropped after their last use."""
    uses = {node.name: len(graph.consumers(node.name)) for node in graph}
    values: dict[str, tf.Tensor] = {}
    for node in graph:
        read = [tf.constant(images) if isinstance(node.operation, Input) else values[name] for name in node.inputs]
        if isinstance(node.operation, Sign):
            read = [hook(node, read[0])]
        value = tf.constant(images) if isinstance(node.operation, Input) else node.operation(*read)
        if node.limits is not None:
            value = tf.quantization.fake_quant_with_min_max_args(value, *node.limits)
        values[node.name] = value
        for name in node.inputs:
            uses[name] -= 1
            if not uses[name]:
                del values[name]


def _logits(graph: Graph, images: np.ndarray) -> np.ndarray:
    (source,) = [node.name for node in graph if isinstance(node.operation, Input)]
    (output,) = graph.outputs.values()

    @tf.function
    def run(batch: tf.Tensor) -> tf.Tensor:
        return graph.run({source: batch})[output]

    return np.concatenate([run(tf.constant(images[k : k + _BATCH])).numpy() for k in range(0, len(images), _BATCH)])


def measure(run: Run, count: int) -> Iterator[dict[str, object]]:
    """A row per variant: how many images keep their class, and the rms of the change of the logits."""
    data = run.dataset()
    reference = Reference(in_float32(run.model()))
    graph = deploy(reference, with_passes(Options(), in_int8=True))
    calibration = data.calibration()
    limits = calibrated(graph, inputs_by_name(reference, calibration))
    images, labels = data.inputs(data.test, count), data.test.labels[:count]
    expected = _logits(graph, images)

    def row(what: str, found: np.ndarray) -> dict[str, object]:
        return {
            "run": run.folder.name,
            "test_images": count,
            "changed": what,
            "agreement": f"{np.mean(found.argmax(-1) == expected.argmax(-1)):.4f}",
            "top1": f"{np.mean(found.argmax(-1) == labels):.4f}",
            "logits_rms": f"{np.sqrt(np.mean(np.square(found - expected))):.3f}",
        }

    yield row("nothing", expected)
    generator = np.random.default_rng(0)
    for level in _NOISE:
        noise = generator.uniform(-level, level, images.shape) / np.asarray(data.normalization.std)
        yield row(f"image: noise of up to {level} grey levels", _logits(graph, (images + noise).astype(np.float32)))
    for what, changed in variants(graph, limits, calibration):
        yield row(what, _logits(changed, images))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of trained runs")
    arguments.add_argument("--images", type=int, default=2000, help="test images")
    options = arguments.parse_args()
    for folder in options.runs:
        run = Run.open(folder)
        for found in measure(run, options.images):
            print(found, flush=True)
            record.append(TABLE, [found], seed=run.recipe.seed)


if __name__ == "__main__":
    main()
