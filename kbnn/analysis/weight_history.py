"""The history of binary weights during training, epoch by epoch, in one small file."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kbnn import files, structure
from kbnn.errors import KbnnError
from kbnn.loading import read_arrays

if TYPE_CHECKING:
    import tensorflow as tf

# Latent weights are binned in units of their layer's mean magnitude; weights of two values are near -1 and +1.
EDGES = np.linspace(-4, 4, 82)
_SCALE, _SIGNS = "scale/", "signs/"


@dataclass
class WeightHistory:
    """Per epoch and binary layer: shares of +1, flips since the previous epoch, histograms and scales.

    `positive` and `flips` are shares `(E, L)`; the flips of the first epoch are NaN. `histograms` `(E, L, 81)` counts
    latent weights in the bins `EDGES`, in units of the layer's mean magnitude, `magnitudes` `(E, L)`; the outermost
    bins include all values beyond them. `scales` holds the learned α of each layer that has one, `(E, Cout)`; it is NaN
    in epochs of stages in which the layer has none. Epoch 0 is the untrained network.
    """

    layers: tuple[str, ...] = ()
    epochs: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    positive: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    flips: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    magnitudes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    histograms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), int))
    scales: dict[str, np.ndarray] = field(default_factory=dict)
    # Packed signs of the last three epochs: flips are counted from the previous one, and a run may resume from the
    # older of its two checkpoints.
    signs: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def mean_flips(self) -> np.ndarray:
        """Share of all binary weights that changed sign within each epoch, `(E,)`; NaN if unknown."""
        return self.flips @ self.histograms[-1].sum(-1) / self.histograms[-1].sum()

    def record(self, model: "tf.keras.Model", epoch: int) -> None:
        """Adds the state of a model after `epoch`, and drops earlier records of this epoch and later ones.

        Raises:
            UsageError: the model has no binary layer.
        """
        layers = structure.require_binary_layers(model)
        names = tuple(structure.names_of(layers))
        if names != self.layers:
            vars(self).update(vars(WeightHistory(names)))
        self._forget(epoch)
        latents = [structure.latent_kernel(layer) for layer in layers]
        signs = [structure.binary_signs(layer).ravel() for layer in layers]
        magnitudes = np.array([np.abs(latent).mean() for latent in latents])
        histograms = [_histogram(latent, unit) for latent, unit in zip(latents, magnitudes, strict=True)]
        self.epochs = np.append(self.epochs, epoch)
        self.positive = _append(self.positive, np.array([sign.mean() for sign in signs]))
        self.flips = _append(self.flips, self._flips_since(epoch - 1, signs))
        self.magnitudes = _append(self.magnitudes, magnitudes)
        self.histograms = _append(self.histograms, np.array(histograms))
        for name, layer in zip(names, layers, strict=True):
            self._record_scale(name, layer)
        before = {known: self.signs[known] for known in (epoch - 2, epoch - 1) if known in self.signs}
        self.signs = {**before, epoch: np.packbits(np.concatenate(signs))}

    def _record_scale(self, name: str, layer: "tf.keras.layers.Layer") -> None:
        alpha, known = structure.learned_scale(layer), self.scales.get(name)
        if alpha is None:
            if known is not None:
                self.scales[name] = _append(known, np.full(known.shape[1:], np.nan))
            return
        # The layers of another stage may have none, or one of another shape.
        if known is None or known.shape[1:] != alpha.shape:
            known = np.full((len(self.epochs) - 1, *alpha.shape), np.nan)
        self.scales[name] = _append(known, alpha)

    def _forget(self, epoch: int) -> None:
        kept = self.epochs < epoch
        self.epochs = self.epochs[kept]
        for name in ("positive", "flips", "magnitudes", "histograms"):
            setattr(self, name, getattr(self, name)[kept] if kept.any() else np.zeros((0, 0)))
        self.scales = {name: alpha[kept] for name, alpha in self.scales.items() if kept.any()}

    def _flips_since(self, epoch: int, signs: list[np.ndarray]) -> np.ndarray:
        if epoch not in self.signs:
            return np.full(len(signs), np.nan)
        ends = np.cumsum([sign.size for sign in signs])
        before = np.split(np.unpackbits(self.signs[epoch])[: ends[-1]], ends[:-1])
        return np.array([np.mean(old != new) for old, new in zip(before, signs, strict=True)])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz file atomically."""
        arrays = {
            "layers": np.array(self.layers),
            "epochs": self.epochs,
            "positive": self.positive.astype(np.float32),
            "flips": self.flips.astype(np.float32),
            "magnitudes": self.magnitudes.astype(np.float32),
            "histograms": self.histograms.astype(np.int32),
            **{_SCALE + name: alpha.astype(np.float32) for name, alpha in self.scales.items()},
            **{_SIGNS + str(epoch): bits for epoch, bits in self.signs.items()},
        }
        # Compressed in memory: NumPy's archive raises a second error if the disk is full while it writes to a file.
        archive = io.BytesIO()
        np.savez_compressed(archive, **arrays)
        files.write(path, archive.getvalue())

    @staticmethod
    def read(path: str | os.PathLike[str]) -> "WeightHistory":
        """Reads a file that `write` wrote.

        Raises:
            KbnnError: the file is missing or damaged.
        """
        try:
            arrays = read_arrays(Path(path), text=("layers",))
            shape = (len(arrays["epochs"]), len(arrays["layers"]))
            for name in ("positive", "flips", "magnitudes", "histograms"):
                if arrays[name].shape[:2] != shape:
                    raise ValueError(f"'{name}' has the shape {arrays[name].shape}, not {shape}")
            return WeightHistory(
                tuple(arrays["layers"].tolist()),
                **{name: arrays[name] for name in ("epochs", "positive", "flips", "magnitudes", "histograms")},
                scales=_with_prefix(arrays, _SCALE),
                signs={int(epoch): bits for epoch, bits in _with_prefix(arrays, _SIGNS).items()},
            )
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise KbnnError(
                f"cannot read the weight history '{path}' ({error}): train with `Diagnostics`, or remove a damaged file"
            ) from error


def _histogram(latent: np.ndarray, unit: float) -> np.ndarray:
    inner = np.clip(latent.ravel() / (unit or 1.0), EDGES[0], EDGES[-1])
    return np.histogram(inner, EDGES)[0]


def _append(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, row[None]]) if len(rows) else row[None]


def _with_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
