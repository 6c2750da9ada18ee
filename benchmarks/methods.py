"""Compares each method's training step with the plain sign method's (bnn), as ratios of alternating steps.

    taskset -c 0,1 .venv/bin/python benchmarks/methods.py [--network resnet20] [--policy float32] [METHOD...]
    taskset -c 0,1 .venv/bin/python benchmarks/methods.py --network resnet20 react react-with-relu

The two networks alternate in one process, on the same constant batch. The ratio compares their fastest steps; the ratio
of processor times, which depends less on other load, is also reported. Writes results/methods.csv.

METHOD-with-ACTIVATION has another activation after the additions: `bnn-with-prelu` shows the cost of PReLU,
and `react-with-relu`, with TensorFlow's parameter-free ReLU instead of RPReLU, the cost of any activation there.
"""

import argparse
import dataclasses
import time

import numpy as np
import record
from training_variants import BATCHES

import kbnn

MODIFIED = ("xnor+ml", "xnor+std", "xnor+bma", "xnor+std+ml+bma", "irnet+ml+bma", "react+bma")


def method_of(name: str) -> kbnn.methods.Method:
    import tensorflow as tf

    base, _, activation = name.partition("-with-")
    method = kbnn.methods.get(base)
    if activation == "relu":
        return dataclasses.replace(method, after=lambda x, name: tf.keras.layers.ReLU(name=name)(x))
    return method.with_activation(activation) if activation else method


class Step:
    """A network's training step on constant data."""

    def __init__(self, network: str, method: str) -> None:
        import tensorflow as tf

        tf.keras.utils.set_random_seed(0)
        model = kbnn.models.build(network, method=method_of(method), input_shape=(32, 32, 3), classes=10)
        model.compile(
            tf.keras.optimizers.legacy.SGD(0.01, momentum=0.9),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        rng = np.random.default_rng(0)
        images = tf.constant(rng.normal(size=(BATCHES[network], 32, 32, 3)), tf.float32)
        labels = tf.constant(rng.integers(0, 10, BATCHES[network]))
        step = tf.function(lambda: model.train_step((images, labels))["loss"])
        self.run = lambda: float(step())
        self.wall, self.cpu = [], []
        for _ in range(2):
            self.run()

    def measure(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.run()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def measure(network: str, method: str, rounds: int, plain: Step) -> dict[str, object]:
    step = Step(network, method)
    plain.wall.clear()
    plain.cpu.clear()
    for k in range(rounds):
        for each in (step, plain) if k % 2 else (plain, step):
            each.measure()
    return {
        "milliseconds": round(1e3 * min(step.wall), 1),
        "plain_milliseconds": round(1e3 * min(plain.wall), 1),
        "ratio": round(min(step.wall) / min(plain.wall), 3),
        "cpu_ratio": round(float(np.median(step.cpu) / np.median(plain.cpu)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--network", choices=BATCHES, action="append")
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(2)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.keras.mixed_precision.set_global_policy(arguments.policy)
    binary = [name for name in kbnn.methods.names() if name not in ("float", "presb")]
    for network in arguments.network or BATCHES:
        plain = Step(network, "bnn")
        for method in arguments.methods or [*binary, *MODIFIED]:
            row = {"network": network, "batch": BATCHES[network], "policy": arguments.policy, "method": method}
            row |= measure(network, method, arguments.rounds, plain)
            print(row, flush=True)
            record.append("methods", [row])


if __name__ == "__main__":
    main()
