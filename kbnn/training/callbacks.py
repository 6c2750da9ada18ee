"""Callbacks that train or watch a binary network in any `model.fit`."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kbnn.analysis import WeightHistory, entropy
from kbnn.analysis.diagnostics import FILE
from kbnn.errors import UsageError
from kbnn.layers.binarized import Binarized
from kbnn.training.learner import require_built


class BatchNormRetraining(tf.keras.callbacks.Callback):
    """Replaces binary kernels by their signs and trains only batch normalizations while `fit` runs.

    Afterwards the layers are as trainable as before; the kernels stay ±1.

    Raises:
        UsageError: when training starts, the model is not built, or a kernel quantizer maps the ±1 kernels to other
            signs.

    Example:
        >>> model.fit(x, y, epochs=1, callbacks=[kbnn.training.BatchNormRetraining()])

    Source: Liu et al., Bi-Real Net, 2018, section 4.1, the last training step.
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        require_built(self)
        _sign_kernels(self.model)
        self._frozen = _freeze_all_but_batch_norm(self.model)
        # The training function has fixed what is trained.
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for layer in self._frozen:
            layer.trainable = True
        self.model.make_train_function(force=True)


def _sign_kernels(model: tf.keras.Model) -> None:
    """Replaces the latent kernels of binary layers by the signs that the layers multiply with."""
    for layer in model.submodules:
        if not isinstance(layer, Binarized) or layer.kernel_quantizer is None:
            continue
        signs = tf.where(layer.binarized_kernel() >= 0, 1.0, -1.0)
        layer.latent_kernel.assign(signs)
        if tf.reduce_any((layer.binarized_kernel() >= 0) != (signs > 0)):
            raise UsageError(
                f"layer '{layer.name}' cannot keep ±1 kernels: its {type(layer.kernel_quantizer).__name__} maps them "
                f"to other signs; retrain batch normalization with a quantizer that takes the sign"
            )


def _freeze_all_but_batch_norm(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Freezes every layer that is not a batch normalization, and returns those that were trainable."""
    frozen = [
        layer for layer in model.layers if layer.trainable and not isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    for layer in frozen:
        layer.trainable = False
    return frozen


class FlipRatio(tf.keras.callbacks.Callback):
    """Adds to each epoch's logs, for every binary layer, the share of weights that changed sign, and their entropy.

    `logs["flip_ratio"]` is the share over all layers, `logs["flip_ratio/LAYER"]` a layer's, and
    `logs["weight_entropy/LAYER"]` the entropy of its signs in bits: callbacks that come later, such as Keras's
    TensorBoard, show them. `history` records the same and more for `kbnn analyze`.

    Args:
        folder: where to keep the history as `weights.npz`, so that a resumed training continues it.

    Raises:
        UsageError: when training starts, the model has no binary layer, or is not built.

    Example:
        >>> model.fit(x, y, callbacks=[kbnn.training.FlipRatio(), tf.keras.callbacks.TensorBoard("logs")])
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.folder = None if folder is None else Path(folder)
        self.history = WeightHistory()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        require_built(self)
        if self.folder is not None and (self.folder / FILE).is_file():
            self.history = WeightHistory.read(self.folder / FILE)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Flips are counted from the signs of the epoch before.
        if epoch not in self.history.signs:
            self._record(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._record(epoch + 1)
        if logs is None:
            return
        logs["flip_ratio"] = float(self.history.mean_flips[-1])
        for name, flips, positive in zip(
            self.history.layers, self.history.flips[-1], self.history.positive[-1], strict=True
        ):
            logs[f"flip_ratio/{name}"] = float(flips)
            logs[f"weight_entropy/{name}"] = float(np.asarray(entropy(positive)))

    def _record(self, epoch: int) -> None:
        self.history.record(self.model, epoch)
        if self.folder is not None:
            self.history.write(self.folder / FILE)
