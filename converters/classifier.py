"""Classifying pictures with a trained network, from a run, a Keras model or a `.tflite` file."""

import abc
import functools
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import PIL.Image
import tensorflow as tf

from kbnn import files, loading, structure
from kbnn import labels as class_names
from kbnn.converters.android import InputSpec, prepare
from kbnn.converters.tflite import flatbuffer, interpreter
from kbnn.converters.tflite.flatbuffer import Tensor
from kbnn.converters.tflite.metadata import Description, describe
from kbnn.datasets import Dataset, Normalization, pictures
from kbnn.errors import KbnnError, UsageError
from kbnn.precision import in_float32
from kbnn.training import Run

Picture: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray | PIL.Image.Image

_FLOATS = ("float16", "float32", "float64")
# The largest input of a network, in values; a hostile file may claim more than the memory holds.
_MOST_VALUES = 100_000_000
# Images per batch.
_BATCH = 256
# Random inputs that tell whether a network returns probabilities, if its last function does not. The logits of a single
# picture may look like some.
_PROBES = 4
# Operations of TensorFlow that end a network with a linear layer, or change the shape or the type of a value.
_LINEAR = ("BiasAdd", "Conv2D", "MatMul")
_CHANGE_FORM = ("Cast", "ExpandDims", "Identity", "Reshape", "Squeeze")
_SUM_TOLERANCE = 1e-2


class Prediction(NamedTuple):
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


class Classifier:
    """A trained network that takes pictures and returns labels with probabilities, best first.

    A `.tflite` file made by kbnn contains its labels and how it takes pictures; a run records the same about its data
    set, which need not be at hand. A picture is turned upright, resized and cropped like the images of a folder, to the
    same pixels. The Android app cuts out the same part, but resizes it in one step: pixels of large pictures differ a
    little.

    A network with one output has two classes. The output is the probability of the second one if the network ends with
    a sigmoid, and otherwise its logit; the second class is the first one returned if its probability is above 0.5.

    Args:
        path: the folder of a run, a `.tflite`, `.keras` or `.h5` file, a SavedModel of Keras, or a Keras model.
        data: the data set whose classes and normalization apply; needed if `path` does not contain them.
        trust: whether to load a Keras file that may run code; see `kbnn.loading`.

    Attributes:
        labels: the names of the classes, in the order of the network's outputs; two for a network with one output.
        input_shape: height, width and channels of the network's input.
        normalization: maps pixels to the network's input.

    Raises:
        UsageError: there is no such file, it is not an image classifier, or its normalization is not known.
        KbnnError: the file is damaged, or cannot be run on this platform.

    Example:
        >>> classify = kbnn.Classifier("photos.tflite")
        >>> classify("cat.jpg")[0]
        Prediction(label='cat', probability=0.93)
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | tf.keras.Model,
        *,
        data: Dataset | None = None,
        trust: bool | None = None,
    ) -> None:
        self.path = Path(path.name if isinstance(path, tf.keras.Model) else path)
        description = Description() if data is None else Description.of(data)
        self._network: _Network
        if isinstance(path, tf.keras.Model):
            self._network = _Model(path)
        elif files.suffix(self.path) == ".tflite":
            self._network = _File(self.path)
            description = self._known(self._network.description, description)
        elif Run.exists(self.path):
            run = Run.open(self.path)
            self._network = _Model(run.model())
            if data is None and run.preparation() is None and run.has_source:
                data = run.dataset()
            description = self._known(of_run(run), description if data is None else Description.of(data))
        else:
            self._network = _Model(loading.load_model(self.path, trust=trust))
        self.input_shape = self._network.input_shape
        self.labels = description.labels or tuple(str(k) for k in range(max(2, self._network.outputs)))
        class_names.check(self.labels, self._network.outputs)
        self._takes_pixels = bool(description.mean)
        if not self._takes_pixels and data is not None and not data.takes_pixels:
            self.normalization = data.normalization
            return
        if description.mean and len(description.mean) not in (1, self.input_shape[2]):
            raise UsageError(
                f"'{self.path}' takes {self.input_shape[2]} channels, the normalization is for "
                f"{len(description.mean)}: give the data set that it was trained on",
                parameter="data",
            )
        if not description.mean:
            raise UsageError(
                f"'{self.path}' does not say how its input is normalized: give the data set that it was trained on",
                parameter="data",
            )
        if len(description.std) != len(description.mean) or not _is_divisible(description):
            raise UsageError(
                f"the normalization of '{self.path}' is damaged: received mean {description.mean} and standard "
                f"deviation {description.std}, convert the model again"
            )
        self.normalization = Normalization(description.mean, description.std)
        self._spec = InputSpec.of(self.input_shape, description)

    def __call__(self, picture: Picture, top: int | None = None) -> list[Prediction]:
        """Classifies one picture.

        Args:
            picture: a path, the bytes of an image file, pixels uint8 `(H, W)` or `(H, W, 3)`, or a Pillow image.
            top: the number of labels to return; all by default.

        Returns:
            Labels with probabilities, best first.

        Raises:
            KbnnError: the picture cannot be decoded.
        """
        return self.classify([picture], top)[0]

    def classify(self, images: Iterable[Picture], top: int | None = None) -> list[list[Prediction]]:
        """Classifies several pictures; see `__call__`."""
        inputs = [self.input_of(picture) for picture in images]
        return [self._ranked(row, top) for row in self.probabilities(np.stack(inputs))] if inputs else []

    def input_of(self, picture: Picture) -> np.ndarray:
        """The network's input for a picture, float32 `(H, W, C)`."""
        if not self._takes_pixels:
            raise UsageError(
                f"'{self.path}' was trained on float images, and how to make them from pixels is not known: train on "
                f"uint8 images, or pass your own inputs to Classifier.probabilities"
            )
        if self.input_shape[2] not in (1, 3):
            raise UsageError(
                f"'{self.path}' takes {self.input_shape[2]} channels, but a picture has 1 (grey) or 3 (colours): pass "
                f"your own inputs to Classifier.probabilities"
            )
        return prepare(_pixels(picture, self._spec.shorter_side), self._spec)

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """The network's outputs for inputs `(N, H, W, C)`, float32: `(N, classes)`, or `(N, 1)` for two classes."""
        batches = [self._network.run(inputs[k : k + _BATCH]) for k in range(0, len(inputs), _BATCH)]
        outputs = np.concatenate(batches).astype(np.float32)
        # A class may have the logit -inf, whose probability is 0. The only logit may be infinite.
        is_infinite = np.isinf(outputs.max(-1)) & (outputs.shape[-1] > 1)
        wrong = np.isnan(outputs).any(-1) | is_infinite
        if wrong.any():
            raise KbnnError(
                f"'{self.path}' returns values that are not numbers for {np.count_nonzero(wrong)} of {len(wrong)} "
                f"inputs: the network is damaged, or takes inputs in another range"
            )
        return outputs

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """The probabilities `(N, classes)` for inputs `(N, H, W, C)`.

        These are the softmax of the outputs, or for one output p and 1 - p, where p is its sigmoid, unless the network
        ends with these functions.
        """
        outputs = self.outputs(inputs)
        if outputs.shape[-1] == 1:
            return _of_two_classes(outputs[:, 0].astype(np.float64), self.returns_probabilities)
        return outputs.astype(np.float64) if self.returns_probabilities else _softmax(outputs)

    @functools.cached_property
    def returns_probabilities(self) -> bool:
        """Whether the outputs are probabilities rather than logits.

        The network's last function tells if it is a linear layer or the sigmoid of a single output. Otherwise the
        outputs for random inputs do: a single output lies in 0 to 1, several are not negative and sum to 1.
        """
        is_sigmoid = self._network.is_sigmoid()
        if is_sigmoid is False or (is_sigmoid and self._network.outputs == 1):
            return is_sigmoid
        outputs = self._probed().astype(np.float64)
        if self._network.outputs == 1:
            return bool(outputs.min() >= 0 and outputs.max() <= 1)
        # Each output of a quantized file is rounded by up to half a step.
        tolerance = _SUM_TOLERANCE + self._network.step * self._network.outputs / 2
        return bool(outputs.min() >= 0 and np.abs(outputs.sum(-1) - 1).max() <= tolerance)

    def _probed(self) -> np.ndarray:
        """The outputs for random inputs."""
        count = max(1, min(_PROBES, _MOST_VALUES // 10 // math.prod(self.input_shape)))
        return self.outputs(np.random.default_rng(0).standard_normal((count, *self.input_shape), np.float32))

    def _known(self, file: Description, data: Description) -> Description:
        """The description in the file, completed with that of the data set."""
        if file.labels and data.labels and file.labels != data.labels:
            differing = [f"'{a}' and '{b}'" for a, b in zip(file.labels, data.labels, strict=False) if a != b]
            first = differing[0] if differing else f"{len(file.labels)} and {len(data.labels)} labels"
            raise UsageError(
                f"the labels of '{self.path}' are not those of data set '{data.dataset}': {first} differ; give "
                f"the data set that it was trained on"
            )
        return replace(file if file.mean else data, labels=file.labels or data.labels)

    def _ranked(self, shares: np.ndarray, top: int | None) -> list[Prediction]:
        order = np.argsort(-shares, kind="stable")[:top]
        return [Prediction(self.labels[k], float(shares[k])) for k in order]


def _is_divisible(description: Description) -> bool:
    """Whether a normalization maps pixels to finite numbers."""
    return bool(np.isfinite([*description.mean, *description.std]).all() and min(description.std) > 0)


def of_run(run: Run) -> Description:
    """What a run records about its network's labels and input, without reading its images."""
    known, preparation = run.fingerprint(), run.preparation()
    described = Description(labels=known.classes if known else ())
    return described if preparation is None else described.with_input(*preparation)


def _of_two_classes(scores: np.ndarray, are_probabilities: bool) -> np.ndarray:
    """The probabilities `(N, 2)` of two classes by the probabilities, or the logits, `(N,)` of the second one."""
    if are_probabilities:
        return np.stack([1 - scores, scores], axis=-1)
    return np.exp(-np.stack([np.logaddexp(0, scores), np.logaddexp(0, -scores)], axis=-1))


def _softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


class _Network(abc.ABC):
    """A function from inputs `(N, H, W, C)` to outputs `(N, outputs)`, which are multiples of `step`."""

    input_shape: tuple[int, int, int]
    outputs: int
    step: float = 0.0

    @abc.abstractmethod
    def run(self, inputs: np.ndarray) -> np.ndarray: ...

    @abc.abstractmethod
    def is_sigmoid(self) -> bool | None:
        """Whether the network ends with a sigmoid; None if it ends neither with a sigmoid nor with a linear layer."""


def is_sigmoid(model: tf.keras.Model) -> bool | None:
    """Whether a model ends with a sigmoid; None if it ends neither with a sigmoid nor with a linear layer."""
    traced = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    operation = traced.get_concrete_function(tf.TensorSpec((None, *model.input_shape[1:]))).outputs[0].op
    while operation.type in _CHANGE_FORM:
        operation = operation.inputs[0].op
    return operation.type == "Sigmoid" if operation.type in ("Sigmoid", *_LINEAR) else None


class _Model(_Network):
    """A Keras model."""

    def __init__(self, model: tf.keras.Model) -> None:
        structure.check_single(model)
        self._model = in_float32(model)
        self.input_shape = _image_shape(f"model '{model.name}'", model.input_shape)
        self.outputs = _outputs(f"model '{model.name}'", model.output_shape)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        return np.asarray(self._model(inputs, training=False))

    def is_sigmoid(self) -> bool | None:
        return is_sigmoid(self._model)


class _File(_Network):
    """A `.tflite` file, run by Larq Compute Engine's interpreter."""

    def __init__(self, path: Path) -> None:
        file = flatbuffer.read(path)
        if len(file.inputs) != 1 or len(file.outputs) != 1:
            raise UsageError(
                f"'{path}' has {len(file.inputs)} inputs and {len(file.outputs)} outputs, expected one of each: "
                f"convert a model with one input and one output"
            )
        (self._input,), (self._output,) = file.inputs.values(), file.outputs.values()
        for tensor in (self._input, self._output):
            _check_type(path, tensor)
        self._data = file.data
        self.description = describe(file)
        self.input_shape = _image_shape(f"'{path}'", self._input.shape)
        self.outputs = _outputs(f"'{path}'", self._output.shape)
        self._is_sigmoid = file.is_sigmoid(self._output)
        self.step = float(self._output.scales[0]) if self._output.scales else 0.0

    def run(self, inputs: np.ndarray) -> np.ndarray:
        # A file may list its output several times.
        outputs = interpreter.run(self._data, [self._input.stored(inputs)])[0]
        return self._output.real(outputs)

    def is_sigmoid(self) -> bool | None:
        return self._is_sigmoid


def _check_type(path: Path, tensor: Tensor) -> None:
    """Raises UsageError if a tensor does not hold numbers, or quantized ones without a scale or zero point."""
    if tensor.dtype in _FLOATS:
        return
    is_quantized = len(tensor.scales) == len(tensor.zero_points) == 1 and 0 < tensor.scales[0] < np.inf
    if tensor.dtype not in flatbuffer.INTEGERS or (tensor.scales and not is_quantized):
        raise UsageError(
            f"'{path}' has an input or output '{tensor.name}' of type {tensor.dtype} with scales {tensor.scales[:3]} "
            f"and zero points {tensor.zero_points[:3]}: only numbers with at most one scale are supported"
        )


def _image_shape(what: str, shape: Sequence[int | None]) -> tuple[int, int, int]:
    if isinstance(shape, list) or len(shape) != 4 or None in shape[1:]:
        raise UsageError(
            f"{what} does not take images of one size: received input shape {shape}, expected (N, H, W, C)"
        )
    height, width, channels = (int(size) for size in shape[1:] if size is not None)
    if not 1 <= height * width * channels <= _MOST_VALUES:
        raise UsageError(f"{what} takes images of {height}x{width}x{channels}, the limit is {_MOST_VALUES:,} values")
    return height, width, channels


def _outputs(what: str, shape: Sequence[int | None]) -> int:
    """The number of values that a network returns for a picture."""
    if isinstance(shape, list) or len(shape) != 2 or shape[1] is None:
        raise UsageError(f"{what} is not a classifier: received output shape {shape}, expected (N, classes)")
    return int(shape[1])


def _pixels(picture: Picture, shorter: int) -> np.ndarray:
    """Upright RGB pixels, uint8 `(H, W, 3)`, shrunk as the images of a folder are when it is loaded."""
    if isinstance(picture, np.ndarray):
        channels = picture.shape[2] if picture.ndim == 3 else 1
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3) or not picture.size:
            raise UsageError(
                f"pixels are uint8 (H, W) or (H, W, 3): received {picture.dtype} {picture.shape}, give levels 0 to 255"
            )
        levels = picture.reshape(*picture.shape[:2], channels)
        return pictures.shrink(np.repeat(levels, 3 // channels, axis=2), shorter)
    if isinstance(picture, PIL.Image.Image):
        return pictures.shrink(pictures.pixels_of(picture), shorter)
    if isinstance(picture, str | os.PathLike):
        picture = _content(Path(picture))
    if not isinstance(picture, bytes | bytearray | memoryview):
        raise UsageError(
            f"not a picture: received {type(picture).__name__}, give a path, the bytes of an image file, pixels as a "
            f"NumPy array, or a Pillow image"
        )
    with pictures.pillow_without_limit():
        return pictures.decode(bytes(picture), shorter=shorter)


def _content(path: Path) -> bytes:
    try:
        return pictures.read(path)
    except pictures.UnreadableImageError as error:
        raise pictures.UnreadableImageError(f"cannot read picture '{path}': {error}") from error
