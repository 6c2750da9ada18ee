"""Diagnostics during training, as a Keras callback."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from kbnn import structure
from kbnn.analysis import figures
from kbnn.analysis.observation import Observation, observe
from kbnn.analysis.report import summarize
from kbnn.analysis.weight_history import WeightHistory

FILE = "weights.npz"
MEASURES = ("weight_entropy", "activation_entropy", "quantization_error", "optimal_proportion")


class Diagnostics(tf.keras.callbacks.Callback):
    """Records binary weights after each epoch, and logs them to TensorBoard with entropies, errors and flips.

    Writes `FOLDER/weights.npz` (a `WeightHistory`, which `kbnn analyze` draws) and event files to `FOLDER/logs`:
    scalars `analysis/MEASURE/LAYER`, histograms `analysis/weights/LAYER` and `analysis/scales/LAYER`, and figures at
    the end of training. A resumed run continues the file.

    Args:
        folder: folder of the run.
        images: network inputs `(N, H, W, C)` to observe activations on; if None, only weights are logged.

    Raises:
        UsageError: when training starts, the model has no binary layer.

    Example:
        >>> model.fit(x, y, callbacks=[kbnn.analysis.Diagnostics("runs/mine", images=x[:256])])
    """

    def __init__(self, folder: str | os.PathLike[str], images: np.ndarray | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.images = images
        self.history = WeightHistory()
        self._seen: list[Observation] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        structure.require_binary_layers(self.model)
        self._writer = tf.summary.create_file_writer(str(self.folder / "logs" / "analysis"))
        if (self.folder / FILE).is_file():
            self.history = WeightHistory.read(self.folder / FILE)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch == 0:
            self.history.record(self.model, 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.history.record(self.model, epoch + 1)
        self.history.write(self.folder / FILE)
        with self._writer.as_default(step=epoch + 1):
            self._show_weights()
            if self.images is not None:
                self._show_activations(self.images)
        self._writer.flush()

    def _show_weights(self) -> None:
        layers = structure.binary_layers(self.model)
        for layer, name, flips in zip(layers, self.history.layers, self.history.flips[-1], strict=True):
            tf.summary.scalar(f"analysis/flip_ratio/{name}", flips)
            tf.summary.histogram(f"analysis/weights/{name}", structure.latent_kernel(layer))
            if (alpha := structure.learned_scale(layer)) is not None:
                tf.summary.histogram(f"analysis/scales/{name}", alpha)

    def _show_activations(self, images: np.ndarray) -> None:
        observations = observe(self.model, images)
        report = summarize(self.model.name, len(images), observations)
        for layer in report.layers:
            for measure in MEASURES:
                tf.summary.scalar(f"analysis/{measure}/{layer.name}", getattr(layer, measure))
        self._seen = observations

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._seen and self.images is not None:
            with self._writer.as_default(step=int(self.history.epochs[-1])):
                self._show_pictures(self._seen, len(self.images))
        self._writer.close()

    def _show_pictures(self, observations: list[Observation], samples: int) -> None:
        """Logs figures, once at the end, because drawing takes longer than an epoch of a small network."""
        name = self.model.name
        report = summarize(name, samples, observations)
        for measure, drawn in figures.of_networks({name: observations}, {name: report}).items():
            image = tf.io.decode_png(drawn.png, channels=3)
            tf.summary.image(f"analysis/{measure}", image[None], description=drawn.caption)
