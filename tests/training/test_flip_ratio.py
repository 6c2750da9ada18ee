"""Flips and entropy of binary weights in the logs of `model.fit`."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers
from kbnn.errors import UsageError
from kbnn.training import FlipRatio


class Assign(tf.keras.callbacks.Callback):
    """Assigns new values to the kernel at the end of each epoch, before flips are counted."""

    def __init__(self, kernels: list[np.ndarray]) -> None:
        super().__init__()
        self.kernels = kernels

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.model.get_layer("conv").latent_kernel.assign(self.kernels[epoch])


def model(kernel: np.ndarray) -> tf.keras.Model:
    inputs = tf.keras.Input((4, 4, 1))
    conv = layers.BinaryConv2D(1, 2, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="conv")
    built = tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(conv(inputs)))
    conv.latent_kernel.assign(kernel)
    built.compile(tf.keras.optimizers.SGD(0.0), "mse")
    return built


def kernel(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(2, 2, 1, 1)


X, Y = np.ones((2, 4, 4, 1), np.float32), np.ones((2, 1), np.float32)


@pytest.mark.slow
def test_flips_and_entropy_by_hand():
    network = model(kernel(0.1, 0.2, 0.3, 0.4))
    changes = Assign([kernel(0.1, 0.2, 0.3, -0.4), kernel(0.5, -0.2, 0.3, 0.4), kernel(0.6, -0.2, 0.3, 0.4)])
    logs = network.fit(X, Y, epochs=3, verbose=0, callbacks=[changes, FlipRatio()]).history
    assert logs["flip_ratio"] == [0.25, 0.5, 0.0]
    assert logs["flip_ratio/conv"] == [0.25, 0.5, 0.0]
    one_of_four = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    np.testing.assert_allclose(logs["weight_entropy/conv"], [one_of_four] * 3)


@pytest.mark.slow
def test_a_resumed_training_appends_to_its_file(tmp_path: Path):
    network = model(kernel(0.1, 0.2, 0.3, 0.4))
    changes = Assign([kernel(0.1, 0.2, 0.3, -0.4), kernel(0.5, -0.2, 0.3, 0.4)])
    network.fit(X, Y, epochs=1, verbose=0, callbacks=[changes, FlipRatio(tmp_path)])
    logs = network.fit(X, Y, initial_epoch=1, epochs=2, verbose=0, callbacks=[changes, FlipRatio(tmp_path)]).history
    assert logs["flip_ratio"] == [0.5]


def test_a_model_without_binary_layers():
    inputs = tf.keras.Input((4,))
    network = tf.keras.Model(inputs, tf.keras.layers.Dense(1)(inputs))
    network.compile("sgd", "mse")
    with pytest.raises(UsageError, match="has no binary layer"):
        network.fit(np.ones((2, 4)), Y, verbose=0, callbacks=[FlipRatio()])
