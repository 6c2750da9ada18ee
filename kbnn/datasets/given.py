"""Data that is passed in Python: NumPy arrays or a `tf.data.Dataset`."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kbnn.datasets.arrays import Arrays
from kbnn.datasets.dataset import Dataset, Normalization, split_off
from kbnn.datasets.registry import SEED, VALIDATION, check_share
from kbnn.datasets.transform import Transform
from kbnn.errors import UsageError

# Images with their labels, and what `of` accepts.
Pair: TypeAlias = Sequence[npt.ArrayLike] | tf.data.Dataset
Given: TypeAlias = Dataset | Pair | tuple[Pair, Pair] | Mapping[str, Pair]

# Share of the images that is held out as the test split if none is given.
TEST = 0.2
_SPLITS = ("train", "validation", "test")


def of(
    data: Given,
    *,
    name: str = "data",
    classes: Sequence[str] | None = None,
    validation: float = VALIDATION,
    transform: Transform | None = None,
) -> Dataset:
    """A data set from images in memory.

    Images of integers 0 to 255 are normalized by their channels' means and standard deviations; float images are not
    changed.

    Args:
        data: a pair of images `(N, H, W, C)` and integer labels `(N,)`; a `tf.data.Dataset` of such pairs, batched or
            not, which is read into memory; a dictionary of these with the keys "train" and optionally "validation" and
            "test"; training and test data, `(x, y), (x_test, y_test)`, as `tf.keras.datasets` returns them; or a
            `Dataset`, which is returned unchanged. Without "test", a stratified fifth of the images becomes the test
            split.
        name: name of the data set, for messages and results.
        classes: names of the classes; by default the labels' numbers.
        validation: share of the training images to hold out if there is no "validation".
        transform: augmentation.

    Raises:
        UsageError: shapes, types or labels that do not fit, or too few images to split.

    Example:
        >>> kbnn.datasets.of((images, labels), classes=["cat", "dog"])
        >>> kbnn.datasets.of({"train": (x, y), "test": (x_test, y_test)})
    """
    if isinstance(data, Dataset):
        return data
    check_share(validation)
    given = data if isinstance(data, Mapping) else _by_split(data)
    unknown = sorted(set(given) - set(_SPLITS))
    if unknown or "train" not in given:
        raise UsageError(
            f"data needs the split 'train', and may have 'validation' and 'test': received {', '.join(map(str, given))}"
        )
    splits = {split: _arrays(split, pair) for split, pair in given.items()}
    _check_alike(splits)
    train = splits["train"]
    normalization = _normalization(train.images)
    if "test" not in splits:
        train, splits["test"] = split_off(train, TEST, SEED)
    if "validation" not in splits:
        train, splits["validation"] = split_off(train, validation, SEED)
    count = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    names = tuple(classes) if classes is not None else tuple(map(str, range(count)))
    if len(names) < count:
        raise UsageError(f"data has labels up to {count - 1}: received {len(names)} class names, give {count}")
    return Dataset(name, names, normalization, train, splits["validation"], splits["test"], transform or Transform())


def _by_split(data: Pair | tuple[Pair, Pair]) -> Mapping[str, Pair]:
    """Training and test data if there are two of them, otherwise training data."""
    if isinstance(data, tuple | list) and len(data) == 2:
        train, test = data
        if all(isinstance(part, tf.data.Dataset) or _is_pair(part) for part in data):
            return {"train": train, "test": test}
    return {"train": data}


def _is_pair(part: object) -> bool:
    """Whether this is images and labels, and not a list of two images or two labels."""
    return isinstance(part, tuple | list) and len(part) == 2 and _rank(part[0]) >= 3 and 1 <= _rank(part[1]) <= 2


def _rank(value: object) -> int:
    """The number of axes, also of a list of images that differ in size."""
    if isinstance(value, tuple | list):
        return 1 + (_rank(value[0]) if value else 0)
    return np.ndim(cast(npt.ArrayLike, value))


def _arrays(split: str, pair: Pair) -> Arrays:
    images, labels = _loaded(split, pair) if isinstance(pair, tf.data.Dataset) else _pair(split, pair)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(
            f"data of '{split}' is not images and labels: received shapes {images.shape} and {labels.shape}, labels of "
            f"type {labels.dtype}; give images (N, H, W, C) and integer labels (N,)"
        )
    if not len(labels) or labels.min() < 0:
        raise UsageError(f"labels of '{split}' must count from 0: received {labels.min() if len(labels) else 'none'}")
    stored = _stored(split, images)
    if not np.isfinite(stored).all():
        raise UsageError(f"images of '{split}' contain NaN or infinity: remove those images")
    return Arrays(stored, labels.astype(np.int32))


def _pair(split: str, pair: object) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise UsageError(f"data of '{split}' is not images and labels: received {type(pair).__name__}, give a pair")
    try:
        return np.asarray(pair[0]), np.asarray(pair[1])
    except ValueError as error:
        raise _ragged(split) from error


def _stored(split: str, images: np.ndarray) -> np.ndarray:
    """Integers as uint8, and all other numbers as float32."""
    if not np.issubdtype(images.dtype, np.integer):
        return images.astype(np.float32)
    if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 255):
        raise UsageError(
            f"images of '{split}' are {images.dtype} from {images.min()} to {images.max()}: give pixel values 0 to "
            f"255, or floats"
        )
    return images.astype(np.uint8)


def _ragged(split: str) -> UsageError:
    return UsageError(f"images of '{split}' differ in size: resize them to one size (H, W, C)")


def _loaded(split: str, batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a finite `tf.data.Dataset`."""
    if int(batches.cardinality().numpy()) == tf.data.INFINITE_CARDINALITY:
        raise UsageError("data is an endless tf.data.Dataset: take a finite part of it, such as data.take(n)")
    spec = batches.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise UsageError(f"data is a tf.data.Dataset of {spec}: give one of (image, label)")
    pairs = list(batches.as_numpy_iterator())
    if not pairs:
        raise UsageError(f"data of '{split}' is an empty tf.data.Dataset: give one with images")
    join = np.concatenate if np.ndim(pairs[0][0]) == 4 else np.stack
    try:
        return join([images for images, _ in pairs]), join([labels for _, labels in pairs])
    except ValueError as error:
        raise _ragged(split) from error


def _check_alike(splits: Mapping[str, Arrays]) -> None:
    train = splits["train"].images
    for name, split in splits.items():
        if split.shape != splits["train"].shape or split.images.dtype != train.dtype:
            raise UsageError(
                f"images of '{name}' differ from those of 'train': received {split.shape} of {split.images.dtype}, "
                f"expected {splits['train'].shape} of {train.dtype}"
            )


def _normalization(images: np.ndarray) -> Normalization:
    if images.dtype == np.uint8:
        return Normalization.of(images)
    channels = images.shape[-1]
    return Normalization((0.0,) * channels, (1.0,) * channels)
