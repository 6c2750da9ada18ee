"""A user's own images: one sub-folder per class."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from kbnn.datasets.dataset import IMAGENET, Dataset, held_out
from kbnn.datasets.encoded import Encoded, decode
from kbnn.datasets.registry import SEED, VALIDATION, check_share
from kbnn.datasets.transform import Transform
from kbnn.errors import KbnnError, UsageError

Unreadable = Literal["refuse", "skip"]

TEST = 0.2
_TRAIN = "train"
_TEST = ("test", "val", "validation", "valid")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """Encoded images in memory, and the class of each."""

    records: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> Encoded:
        records, labels = tf.constant(self.records[indices]), tf.constant(self.labels[indices])

        def read(seed: tf.Tensor | None) -> tf.data.Dataset:
            order = tf.range(len(indices))
            if seed is not None:
                order = tf.random.experimental.stateless_shuffle(order, seed)
            return tf.data.Dataset.from_tensor_slices(order).map(lambda k: (records[k], labels[k]))

        return Encoded(len(indices), read)


def load_folder(
    path: str | os.PathLike[str],
    *,
    validation: float = VALIDATION,
    transform: Transform | None = None,
    unreadable: Unreadable = "refuse",
) -> Dataset:
    """Loads JPEG, PNG, GIF and BMP images into memory, each shrunk to what the transform needs of it.

    `path/CLASS/image`, of which a stratified fifth becomes the test split; or `path/train/CLASS/image` and
    `path/test/CLASS/image` (also `val`, `validation`, `valid`). Hidden files are left out.

    Args:
        path: the folder.
        validation: share of the training images held out to choose by.
        transform: augmentation, resizing and cropping; ImageNet's at 224x224 by default.
        unreadable: whether images that cannot be read, and classes without images, are an error or left out.

    Raises:
        UsageError: no such folder, fewer than two classes, other classes for testing than for training, or too few
            images to split.
        KbnnError: images cannot be read (they are counted, and the first ones named).

    Example:
        >>> kbnn.datasets.load_folder("flowers", transform=Transform(resize=72, size=64, flip=True))
    """
    folder = Path(path)
    check_share(validation)
    transform = transform or Transform(resize=256, size=224)
    train_folder, test_folder = _splits(folder)
    side = transform.resize or transform.size
    classes, training = _read(train_folder, side, unreadable)
    if test_folder is None:
        train, test = held_out(training.labels, TEST, SEED)
        testing = training
    else:
        train = np.arange(len(training.labels))
        test_classes, testing = _read(test_folder, side, unreadable)
        _check_same_classes(folder, classes, test_classes)
        test = np.arange(len(testing.labels))
    rest, part = held_out(training.labels[train], validation, SEED)
    return Dataset(
        folder.name,
        tuple(classes),
        IMAGENET,
        training.take(train[rest]),
        training.take(train[part]),
        testing.take(test),
        transform,
    )


def _splits(folder: Path) -> tuple[Path, Path | None]:
    if not folder.is_dir():
        raise UsageError(f"no folder of images at '{folder}': give one that has a sub-folder for each class")
    if not (folder / _TRAIN).is_dir():
        return folder, None
    for name in _TEST:
        if (folder / name).is_dir():
            return folder / _TRAIN, folder / name
    raise UsageError(f"'{folder}' has a folder '{_TRAIN}' but none of {', '.join(_TEST)}: add one, or leave out both")


def _read(folder: Path, side: int | None, unreadable: Unreadable) -> tuple[list[str], Images]:
    """All images under `folder`, and the names of their classes."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = {name: _files(folder / name) for name in names}
    paths = [path for name in names for path in files[name]]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda path: _load(path, side), paths))
    loaded = [(path.relative_to(folder), result) for path, result in zip(paths, results, strict=True)]
    problems = [f"{path} ({result})" for path, result in loaded if isinstance(result, str)]
    problems += [f"{name}/ (no images)" for name in names if not files[name]]
    _report(folder, problems, unreadable)

    good = [(path.parts[0], result) for path, result in loaded if isinstance(result, bytes)]
    of_class = [name for name, _ in good]
    classes = [name for name in names if name in set(of_class)]
    if len(classes) < 2:
        raise UsageError(
            f"'{folder}' has images of {len(classes)} class(es){': ' + classes[0] if classes else ''}; "
            f"give one that has a sub-folder of images for each of two classes or more"
        )
    labels = np.array([classes.index(name) for name in of_class], np.int32)
    records = np.array([record for _, record in good], object)
    # Mixed, so that the first images, which files are calibrated and verified on, are of all classes.
    mixed = np.random.default_rng(SEED).permutation(len(records))
    return classes, Images(records[mixed], labels[mixed])


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.name.startswith("."))


def _load(path: Path, side: int | None) -> bytes | str:
    """The encoded image, shrunk so that its shorter side is `side`; or in words why that is not possible."""
    try:
        record = path.read_bytes()
    except OSError as error:
        return error.strerror or str(error)
    if not record:
        return "empty"
    try:
        image = decode(tf.constant(record))
    except tf.errors.InvalidArgumentError:
        return "not a JPEG, PNG, GIF or BMP image, or damaged"
    shorter = min(image.shape[:2])
    if side is None or shorter <= side:
        return record
    extent = [round(length * side / shorter) for length in image.shape[:2]]
    shrunk = tf.image.resize(image, extent, antialias=True)
    return tf.io.encode_jpeg(tf.cast(tf.round(shrunk), tf.uint8), quality=95).numpy()


def _report(folder: Path, problems: Sequence[str], unreadable: Unreadable) -> None:
    if not problems:
        return
    named = ", ".join(problems[:3]) + (", …" if len(problems) > 3 else "")
    found = f"{len(problems)} in '{folder}' cannot be read: {named}"
    if unreadable == "refuse":
        raise KbnnError(f"{found}; remove them, or leave them out with --unreadable skip")
    logger.warning("left out: %s", found)


def _check_same_classes(folder: Path, train: list[str], test: list[str]) -> None:
    if train == test:
        return
    missing = sorted(set(train) ^ set(test))
    raise UsageError(
        f"'{folder}' has {len(train)} classes to train and {len(test)} to test: '{missing[0]}' is only in one of them; "
        f"give both the same sub-folders"
    )
