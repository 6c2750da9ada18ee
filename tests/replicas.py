"""Trains small networks on one replica and on two, from the same weights, on the same batches.

Run in a process of its own, since TensorFlow splits the processor into two devices only before it is used. Prints, as
JSON by network, the largest difference between both trainings' weights, and how far weights moved at most.
"""

import json
import sys

import numpy as np
import tensorflow as tf

import kbnn  # noqa: F401
from kbnn import layers, methods

METHODS = ("xnor+std+ml+bma", "irnet+ml+bma", "bnnplus_r1+bma", "bnnplus_r2", "siman+ml", "react")
X = np.random.default_rng(0).normal(size=(16, 6, 6, 8)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)


def network(name: str) -> tf.keras.Model:
    inputs = tf.keras.Input(X.shape[1:])
    x = tf.keras.layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    if name == "group_aware":
        x = layers.GroupAwareNormalization(2, name="norm")(x)
    else:
        method = methods.get(name)
        x = method.activation(method.convolution(x, 8, 3, groups=2, name="conv"), name="act")
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(5, name="out")(x))
    model.compile(tf.keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


def trained(name: str, weights: list[np.ndarray], strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    with strategy.scope():
        model = network(name)
    model.set_weights(weights)
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return compared(model)


def compared(model: tf.keras.Model) -> list[np.ndarray]:
    """All weights except batch normalization's moving variance, which Keras defines in two ways."""
    return [weight.numpy() for weight in model.weights if "moving_variance" not in weight.name]


def main() -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    differences = {}
    for name in (*METHODS, "group_aware"):
        tf.keras.utils.set_random_seed(0)
        model = network(name)
        one_after, two_after = (
            trained(name, model.get_weights(), strategy) for strategy in (tf.distribute.get_strategy(), two)
        )
        moved = max(np.abs(a - b).max() for a, b in zip(compared(model), one_after, strict=True))
        apart = max(np.abs(a - b).max() for a, b in zip(one_after, two_after, strict=True))
        differences[name] = {"apart": float(apart), "moved": float(moved)}
    sys.stdout.write(json.dumps(differences))


if __name__ == "__main__":
    main()
