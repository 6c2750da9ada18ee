"""Compares the training step of a grouped binary convolution with the ungrouped one, in alternating runs.

    taskset -c 0,1 .venv/bin/python benchmarks/grouped_convolution.py [--groups 2] [--policy float32]

Forward pass and all gradients of one 3x3 `BinaryConv2D`, at the sizes of PresB-Net-18's stages for CIFAR, and the sum
of all four. The ratio compares the fastest runs; the ratio of processor times, which depends less on other load, is
also reported. Writes results/grouped_convolution.csv.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import record
import tensorflow as tf

from kbnn.layers import BinaryConv2D

# Height and width, channels: PresB-Net-18's stages.
SIZES = ((32, 128), (16, 256), (8, 512), (4, 1024))
BATCH = 16


def step_of(size: int, channels: int, groups: int) -> Callable[[], tf.Tensor]:
    layer = BinaryConv2D(
        channels, 3, groups=groups, input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign"
    )
    x = tf.Variable(tf.random.normal((BATCH, size, size, channels)), dtype=layer.compute_dtype)
    layer.build(x.shape)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            y = layer(tf.convert_to_tensor(x), training=True)
            loss = tf.reduce_sum(tf.cast(y, tf.float32))
        return tf.add_n([tf.reduce_sum(tf.cast(g, tf.float32)) for g in tape.gradient(loss, [x, layer.latent_kernel])])

    return step


class Times(NamedTuple):
    """Milliseconds per step: the fastest wall-clock time and the median processor time."""

    clock: float
    processor: float


def measure(size: int, channels: int, groups: int, rounds: int) -> tuple[Times, Times]:
    """The times of the grouped and of the ungrouped convolution."""
    steps = {groups: step_of(size, channels, groups), 1: step_of(size, channels, 1)}
    wall, processor = ({number: [] for number in steps} for _ in range(2))
    for k in range(rounds + 2):
        for number in steps if k % 2 else reversed(steps):
            start = time.perf_counter(), time.process_time()
            float(steps[number]())
            wall[number].append(1e3 * (time.perf_counter() - start[0]))
            processor[number].append(1e3 * (time.process_time() - start[1]))
    return tuple(Times(min(wall[number][2:]), float(np.median(processor[number][2:]))) for number in steps)


def row(grouped: Times, ungrouped: Times, **settings: object) -> dict[str, object]:
    return {
        **settings,
        "milliseconds": round(grouped.clock, 2),
        "ungrouped_milliseconds": round(ungrouped.clock, 2),
        "ratio": round(grouped.clock / ungrouped.clock, 3),
        "processor_ratio": round(grouped.processor / ungrouped.processor, 3),
    }


def together(times: Sequence[Times]) -> Times:
    return Times(*map(sum, zip(*times, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.mixed_precision.set_global_policy(arguments.policy)
    settings = {"batch": BATCH, "policy": arguments.policy, "groups": arguments.groups}
    times = {}
    for size, channels in SIZES:
        times[size, channels] = measure(size, channels, arguments.groups, arguments.rounds)
        print(size, channels, times[size, channels], flush=True)
    rows = [row(*pair, map=f"{size}x{size}", channels=channels, **settings) for (size, channels), pair in times.items()]
    grouped, ungrouped = zip(*times.values(), strict=True)
    rows.append(row(together(grouped), together(ungrouped), map="all", channels="", **settings))
    for measured in rows:
        print(measured)
    record.append("grouped_convolution", rows)


if __name__ == "__main__":
    main()
