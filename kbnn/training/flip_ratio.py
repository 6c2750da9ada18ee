"""How many binary weights change their sign, and how much information they hold, epoch by epoch."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kbnn.analysis import WeightHistory, entropy
from kbnn.analysis.diagnostics import FILE
from kbnn.training.built import require_built


class FlipRatio(tf.keras.callbacks.Callback):
    """Adds to each epoch's logs, for every binary layer, the share of weights that changed sign, and their entropy.

    `logs["flip_ratio"]` is the share over all layers, `logs["flip_ratio/LAYER"]` a layer's, and
    `logs["weight_entropy/LAYER"]` the entropy of its signs in bits: callbacks that come later, such as Keras's
    TensorBoard, show them. `history` has the same and more for `kbnn analyze`.

    Args:
        folder: where to keep the history as `weights.npz`, so that a resumed training goes on in it.

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
        if epoch not in self.history.epochs:
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
