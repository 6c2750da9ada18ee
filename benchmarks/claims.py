"""Tests the papers' claims on digits: pairs of runs that differ in one technique, three seeds each.

    python benchmarks/claims.py [NAME...]

Network `tiny` (4 binary layers), 1,293 training images; small enough to see the spread over seeds. Writes
`results/claims.csv`, from which `docs/results.md` is generated.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import record
import tensorflow as tf

from kbnn import analysis, datasets, methods, models, quantizers
from kbnn.datasets import Dataset
from kbnn.methods import Method
from kbnn.regularizers import AdjustablePenalty

SEEDS = (0, 1, 2)
BATCH = 64
MEASURES = ("quantization_error", "paper_error_sign", "paper_error_median", "optimal_proportion")


@dataclass(frozen=True)
class Setting:
    """One way to train: a method, an optimizer and a number of epochs."""

    method: Callable[[], Method]
    optimizer: str = "adam"
    learning_rate: float = 5e-3
    epochs: int = 60


def _fixed_beta() -> Method:
    def fixed() -> quantizers.SignSwish:
        return quantizers.SignSwish(5.0)

    return dataclasses.replace(methods.get("bnnplus_r1"), input_quantizer=fixed, kernel_quantizer=fixed)


class WeightDecay(AdjustablePenalty):
    """Adds `strength·w` to a gradient: weight decay, which the papers do not use for binarized kernels."""

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return self.strength * tf.nn.l2_loss(w)


def _with_l2(decay: float) -> Method:
    return dataclasses.replace(methods.get("siman"), kernel_regularizer=WeightDecay(decay))


def _named(name: str) -> Callable[[], Method]:
    return lambda: methods.get(name)


# SiMaN's training: SGD, learning rate 0.1. Over its 78,000 steps on CIFAR-10, learning rate times the decay of 5e-4
# sums to 1.95; 4,000 steps reach the same sum with a decay of 1e-2.
SIMAN = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 200}
SETTINGS = {
    **{name: Setting(_named(name)) for name in ("bnn", "xnor", "xnor+ml", "xnor+bma", "xnor+ml+bma", "bireal")},
    "bnnplus_r1": Setting(_named("bnnplus_r1")),
    "bnnplus_r1, β = 5 fixed": Setting(_fixed_beta),
    "siman": Setting(_named("siman"), **SIMAN),
    "siman with L2": Setting(lambda: _with_l2(1e-2), **SIMAN),
}


def main(names: list[str]) -> None:
    data = datasets.load("digits")
    for name in names or SETTINGS:
        for seed in SEEDS:
            row = {"setting": name, **measure(SETTINGS[name], data, seed)}
            print(row, flush=True)
            record.append("claims", [row], seed=seed)


def measure(setting: Setting, data: Dataset, seed: int) -> dict[str, object]:
    """Trains once, and measures accuracy on the test set and the binary layers on the validation images."""
    tf.keras.utils.set_random_seed(seed)
    model = models.build("tiny", method=setting.method(), input_shape=data.input_shape, classes=len(data.classes))
    inputs, steps = data.inputs(data.train), data.train.size // BATCH
    rate = tf.keras.optimizers.schedules.CosineDecay(setting.learning_rate, setting.epochs * steps)
    optimizers = {
        "adam": lambda: tf.keras.optimizers.legacy.Adam(rate),
        "sgd": lambda: tf.keras.optimizers.legacy.SGD(rate, momentum=0.9),
    }
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers[setting.optimizer](), loss, metrics=["accuracy"], steps_per_execution=steps)
    batches = tf.data.Dataset.from_tensor_slices((inputs, data.train.labels)).cache()
    shuffled = batches.shuffle(data.train.size, seed=seed).batch(BATCH, drop_remainder=True)
    history = model.fit(shuffled, epochs=setting.epochs, verbose=0)
    report = analysis.report(model, data.inputs(data.validation))
    _, accuracy = model.evaluate(data.inputs(data.test), data.test.labels, batch_size=data.test.size, verbose=0)
    return {
        "epochs": setting.epochs,
        "optimizer": setting.optimizer,
        "loss": f"{history.history['loss'][-1]:.5f}",
        "test_top1": f"{accuracy:.4f}",
        "weight_entropy": f"{report.weight_entropy:.5f}",
        "activation_entropy": f"{report.activation_entropy:.5f}",
        **{name: f"{np.mean([getattr(layer, name) for layer in report.layers]):.4f}" for name in MEASURES},
    }


if __name__ == "__main__":
    main(sys.argv[1:])
