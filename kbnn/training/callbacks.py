"""Callbacks for any `model.fit` of a binary network: batch-normalization retraining and sign flips."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from kbnn import structure
from kbnn.analysis import WeightHistory, entropy
from kbnn.analysis.diagnostics import FILE
from kbnn.errors import UsageError
from kbnn.training.learner import require_built


class BatchNormRetraining(tf.keras.callbacks.Callback):
    """Replaces binary kernels by their signs and trains only batch normalizations while `fit` runs.

    Includes nested models and Larq's layers. Afterwards, each layer is as trainable as before; the kernels stay ±1.

    Raises:
        UsageError: when training starts, the model is not built or has no batch normalization, or a kernel quantizer
            maps the ±1 kernels to other signs.

    Example:
        >>> model.fit(x, y, epochs=1, callbacks=[kbnn.training.BatchNormRetraining()])

    Source: Liu et al., Bi-Real Net, 2018, section 4.1, the last training step.
    """

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        require_built(self)
        sign_kernels(self.model)
        self._trainable = [(layer, layer.trainable) for layer in structure.layers(self.model)]
        for layer, _ in self._trainable:
            if not structure.contains(layer, structure.BatchNormalization):
                layer.trainable = False
        # The existing training function would keep training the old set of weights.
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        # In the model's order, because setting an outer layer also sets its inner layers, which follow it.
        for layer, trainable in self._trainable:
            layer.trainable = trainable
        self.model.make_train_function(force=True)


def sign_kernels(model: tf.keras.Model) -> None:
    """Replaces the latent kernels of all binary layers, nested ones and Larq's too, by their binary signs.

    Raises:
        UsageError: the model has no batch normalization to retrain, or a quantizer maps the kernels to other signs.
    """
    if not structure.layers_of(model, structure.BatchNormalization):
        raise UsageError(
            f"no batch normalization to retrain: received '{model.name}' without one; train all of its weights instead"
        )
    for layer in structure.layers(model):
        for kernel, quantizer in structure.binary_kernels(layer):
            signs = structure.signs(structure.quantize(quantizer, tf.convert_to_tensor(kernel)), quantizer)
            kernel.assign(np.where(signs, 1.0, -1.0))
            if (structure.signs(structure.quantize(quantizer, tf.convert_to_tensor(kernel)), quantizer) != signs).any():
                raise UsageError(
                    f"layer '{layer.name}' cannot keep ±1 kernels: its {type(quantizer).__name__} maps them to other "
                    f"signs; retrain batch normalization with a quantizer that takes the sign"
                )


class FlipRatio(tf.keras.callbacks.Callback):
    """Logs the share of weights that changed sign in each epoch, and the entropy of the signs, for every binary layer.

    `logs["flip_ratio"]` is the share over all layers, `logs["flip_ratio/LAYER"]` that of one layer, and
    `logs["weight_entropy/LAYER"]` the entropy of its signs in bits. Later callbacks, such as Keras's TensorBoard, see
    these logs. `history` records the same and more for `kbnn analyze`.

    Args:
        folder: where to keep the history as `weights.npz`, so that a resumed training continues it.

    Raises:
        UsageError: when training starts, the model has no binary layer or is not built.

    Example:
        >>> model.fit(x, y, callbacks=[kbnn.training.FlipRatio(), tf.keras.callbacks.TensorBoard("logs")])
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.folder = None if folder is None else Path(folder)
        self.history = WeightHistory()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        require_built(self)
        if self.folder is not None and (self.folder / FILE).is_file():
            self.history = WeightHistory.read(self.folder / FILE)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # The first epoch's flips are counted from the initial signs.
        if epoch not in self.history.signs:
            self._record(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
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
