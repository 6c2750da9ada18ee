"""Measures the rank error of the batch median's estimate on activations of real images.

    .venv/bin/python benchmarks/median_rank.py [--steps 20] [--batches 5]

Networks with a batch median before each sign are trained for a few steps on CIFAR-10; then further batches are
measured. The rank error of a layer's estimate is the difference between the share of activations below it and one half.
Writes results/median_rank.csv.
"""

import argparse

import numpy as np
import record
import tensorflow as tf
import tensorflow_datasets as tfds
from training_variants import BATCHES

import kbnn
from kbnn.layers import BatchMedian, batch_median


def rank_error(x: tf.Tensor) -> float:
    """abs(share below - 1/2) in percent, where values equal to the estimate count as half below."""
    estimate = float(batch_median.median_of(x))
    values = x.numpy()
    return float(100 * abs((np.mean(values < estimate) + np.mean(values <= estimate)) / 2 - 0.5))


def measure(network: str, steps: int, batches: int) -> dict[str, object]:
    tf.keras.utils.set_random_seed(0)
    model = kbnn.models.build(network, method="xnor+bma", input_shape=(32, 32, 3), classes=10)
    model.compile(
        tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    data = tfds.load("cifar10", split="train", as_supervised=True, download=False)
    data = data.map(lambda x, y: ((tf.cast(x, tf.float32) - 125) / 63, y)).batch(BATCHES[network])
    model.fit(data.take(steps), verbose=0)

    entering = [layer.input for layer in model.layers if isinstance(layer, BatchMedian)]
    inside = tf.keras.Model(model.inputs, entering)
    errors = np.array(
        [[rank_error(x) for x in inside(images, training=True)] for images, _ in data.skip(steps).take(batches)]
    )
    return {
        "network": network,
        "batch": BATCHES[network],
        "steps": steps,
        "medians": errors.size,
        "mean_rank_error_percent": round(float(errors.mean()), 4),
        "95th_percentile": round(float(np.percentile(errors, 95)), 4),
        "largest": round(float(errors.max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=BATCHES, action="append")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batches", type=int, default=5)
    arguments = parser.parse_args()
    for network in arguments.network or BATCHES:
        row = measure(network, arguments.steps, arguments.batches)
        print(row, flush=True)
        record.append("median_rank", [row], seed=0)


if __name__ == "__main__":
    main()
