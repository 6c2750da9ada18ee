"""Data that is passed in Python: NumPy arrays or a `tf.data.Dataset`."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

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
Given: TypeAlias = Dataset | Pair | Mapping[str, Pair]

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

    uint8 images are normalized by their channels' means and standard deviations; float images are not changed.

    Args:
        data: a pair of images `(N, H, W, C)` and integer labels `(N,)`; a `tf.data.Dataset` of such pairs, batched or
            not, which is read into memory; a dictionary of these with the keys "train" and optionally "validation" and
            "test"; or a `Dataset`, which is returned unchanged. Without "test", a stratified fifth of the images
            becomes the test split.
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
    given = data if isinstance(data, Mapping) else {"train": data}
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


def _arrays(split: str, pair: Pair) -> Arrays:
    images, labels = _loaded(pair) if isinstance(pair, tf.data.Dataset) else _pair(split, pair)
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
    stored = images if images.dtype == np.uint8 else images.astype(np.float32)
    if not np.isfinite(stored).all():
        raise UsageError(f"images of '{split}' contain NaN or infinity: remove those images")
    return Arrays(stored, labels.astype(np.int32))


def _pair(split: str, pair: object) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise UsageError(f"data of '{split}' is not images and labels: received {type(pair).__name__}, give a pair")
    return np.asarray(pair[0]), np.asarray(pair[1])


def _loaded(batches: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a finite `tf.data.Dataset`."""
    if int(batches.cardinality().numpy()) == tf.data.INFINITE_CARDINALITY:
        raise UsageError("data is an endless tf.data.Dataset: take a finite part of it, such as data.take(n)")
    spec = batches.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise UsageError(f"data is a tf.data.Dataset of {spec}: give one of (image, label)")
    pairs = list(batches.as_numpy_iterator())
    join = np.concatenate if spec[0].shape.rank == 4 else np.stack
    return join([images for images, _ in pairs]), join([labels for _, labels in pairs])


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
