"""Exports a trained network to the Android app in android_demo/: files to compare, and the index that lists them."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from kbnn import files, structure, tables
from kbnn.converters.forms import FLOAT_TWIN, INT8_TWIN, Bitpacked, Form
from kbnn.converters.tflite.audit import inspect
from kbnn.converters.tflite.metadata import Description
from kbnn.datasets import Dataset, Normalization
from kbnn.datasets.encoded import centre
from kbnn.errors import UsageError

INDEX = "models.json"
# The layout of the index that the app reads.
FORMAT = 4
_CALIBRATION_IMAGES = 200
_VERIFICATION_IMAGES = 64


@dataclass(frozen=True)
class InputSpec:
    """How to prepare a picture as network input.

    The middle of the picture is cut out, as much as if its shorter side (with `square`, each side) were resized to
    `shorter_side` and `height` x `width` cut out; it is resized to that size (bilinear, antialiased), and each channel
    becomes `(pixel - mean) / std`. If the network has one input channel, it gets the luma of the picture.
    """

    height: int
    width: int
    channels: int
    shorter_side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    square: bool = False

    @staticmethod
    def of(input_shape: tuple[int, int, int], description: Description) -> "InputSpec":
        """The input of a network of a known shape `(H, W, C)`, whose description has a normalization."""
        height, width, channels = input_shape
        side = description.resize or max(height, width)
        return InputSpec(height, width, channels, side, description.mean, description.std, description.square)


@dataclass(frozen=True)
class AppModel:
    """One file of the app.

    `binary_share` is the share of binary MACs, 0 if it is not known. If `returns_probabilities`, the app shows the
    outputs as they are, and otherwise their softmax.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    binary_share: float
    returns_probabilities: bool


@dataclass(frozen=True)
class Assets:
    """What `export_android` wrote."""

    folder: str
    labels: tuple[str, ...]
    input: InputSpec
    models: tuple[AppModel, ...]

    def __str__(self) -> str:
        rows = [(model.name, tables.size(model.size_bytes), f"{model.binary_share:.1%}") for model in self.models]
        table = tables.render(("model", ">size", ">binary MACs"), rows)
        return f"{self.folder}: {len(self.labels)} labels, input {_shape(self.input)}\n\n{table}"


def _shape(spec: InputSpec) -> str:
    return f"{spec.height}x{spec.width}x{spec.channels}"


def export_android(
    model: tf.keras.Model, data: Dataset, folder: str | os.PathLike[str], name: str, recipe: str = ""
) -> Assets:
    """Writes `NAME.tflite` (bitpacked), its float32 and int8 twins, and the index that lists them.

    Each file contains labels, normalization and input size as metadata. The index is written last, so that it never
    lists an incomplete file.

    Raises:
        UsageError: the network's input does not have the shape of the data set's images, or these are float images.
        ConversionError: a 1-bit layer cannot be bitpacked.
        KbnnError: a file cannot be written.

    Example:
        >>> export_android(run.model(), run.dataset(), "android_demo/app/src/main/assets", "digits")
    """
    structure.check_single(model)
    if tuple(model.input_shape[1:]) != data.input_shape:
        raise UsageError(
            f"model '{model.name}' and data set '{data.name}' do not fit: received input {model.input_shape[1:]} and "
            f"images {data.input_shape}, give the data set that it was trained on"
        )
    if model.output_shape[-1] != len(data.classes):
        raise UsageError(
            f"the app needs a score for each of the {len(data.classes)} classes: model '{model.name}' returns "
            f"{model.output_shape[-1]}, end it with a dense layer of {len(data.classes)} logits"
        )
    if not data.takes_pixels:
        raise UsageError(
            f"the app feeds pixels of a camera: received data set '{data.name}' of float images, train on uint8 images"
        )
    root = Path(folder)
    calibration = data.calibration(_CALIBRATION_IMAGES)
    test = data.inputs(data.test, _VERIFICATION_IMAGES)
    described = Description.of(data, recipe, name)
    # The Android library has only the default kernel, which refuses grouped convolutions; `device` splits them.
    written: dict[str, Form] = {
        name: Bitpacked(name, {"device": "android"}),
        f"{name}_float32": FLOAT_TWIN,
        f"{name}_int8": INT8_TWIN,
    }
    models = []
    for title, form in written.items():
        path = root / f"{title}.tflite"
        form.write(model, path, test, calibration, described)
        models.append(_described(title, path))
    assets = Assets(os.fspath(root), data.classes, input_of(data), tuple(models))
    entries = [asdict(model) for model in models]
    framing = {"shorter_side": assets.input.shorter_side, "square": assets.input.square}
    content = {"format": FORMAT, **framing, "models": entries}
    files.write(root / INDEX, json.dumps(content, indent=2) + "\n")
    return assets


def _described(title: str, path: Path) -> AppModel:
    from kbnn.converters.classifier import Classifier

    content = path.read_bytes()
    return AppModel(
        title,
        path.name,
        hashlib.sha256(content).hexdigest(),
        len(content),
        inspect(path).binary_share or 0.0,
        # The rule of `kbnn predict`, so that both show the same percentages.
        Classifier(path).returns_probabilities,
    )


def input_of(data: Dataset) -> InputSpec:
    """How the app must prepare a picture so that it is like the images of the test split."""
    return InputSpec.of(data.input_shape, Description.of(data))


def prepare(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Prepares a picture as the app does: uint8 pixels `(h, w, 3)` to network input `(H, W, C)`."""
    levels = tf.cast(pixels, tf.float32) if spec.channels == 3 else _luma(pixels)
    part = centre(levels, (spec.height, spec.width), spec.shorter_side, square=spec.square)
    return Normalization(spec.mean, spec.std)(part).numpy()


def _luma(pixels: np.ndarray) -> np.ndarray:
    """BT.601 luma, computed in thousandths so that grey pixels keep their exact level."""
    return (pixels.astype(np.int64) @ [299, 587, 114]).astype(np.float32)[..., None] / np.float32(1000)
