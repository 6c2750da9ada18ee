"""Loads image folders with one sub-folder per class."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from kbnn.datasets import pictures, walk
from kbnn.datasets.dataset import IMAGENET, Dataset, held_out
from kbnn.datasets.encoded import Encoded
from kbnn.datasets.pictures import Limits, UnreadableImageError
from kbnn.datasets.registry import SEED, VALIDATION, check_share
from kbnn.datasets.transform import Transform
from kbnn.datasets.walk import LeftOut
from kbnn.errors import KbnnError, UsageError
from kbnn.printable import printable

Unreadable = Literal["refuse", "skip"]

TEST = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """Encoded images in memory, each with its class and the digest of its file."""

    records: np.ndarray
    labels: np.ndarray
    digests: np.ndarray

    def take(self, indices: np.ndarray) -> Encoded:
        records, labels = tf.constant(self.records[indices]), tf.constant(self.labels[indices])

        def read(seed: tf.Tensor | None) -> tf.data.Dataset:
            order = tf.range(len(indices))
            if seed is not None:
                order = tf.random.experimental.stateless_shuffle(order, seed)
            return tf.data.Dataset.from_tensor_slices(order).map(lambda k: (records[k], labels[k]))

        digest = hashlib.sha256(b"".join(self.digests[indices]) + self.labels[indices].tobytes())
        return Encoded(len(indices), read, digest.hexdigest(), self.labels[indices])


def load_folder(
    path: str | os.PathLike[str],
    *,
    validation: float = VALIDATION,
    transform: Transform | None = None,
    unreadable: Unreadable = "refuse",
    max_bytes: int | None = None,
    max_pixels: int | None = None,
) -> Dataset:
    """Loads a folder of images into memory, shrunk to the size that the transform needs and compressed without loss.

    A photograph that is shrunk to 256 x 384 pixels takes about 150 kB.

    The layout is either `path/CLASS/image`, of which a stratified fifth becomes the test split, or
    `path/SPLIT/CLASS/image`. Split folders are recognized by the words train, val and test in their names (`Train`,
    `training_set`, `seg_test`, `validation`). With only train and val, val is the test split; with all three, val is
    the validation split.

    JPEG, PNG, GIF, BMP, WebP, TIFF and PNM images are decoded to upright 8-bit RGB; see `kbnn.datasets.pictures`.
    Hidden files and broken links are left out and counted in `Dataset.left_out`.

    Args:
        path: the folder.
        validation: share of the training images to hold out, if there is no validation folder.
        transform: augmentation, resizing and cropping; by default ImageNet's at 224x224.
        unreadable: "refuse" for an error if images cannot be decoded or a class has no images, "skip" to leave them
            out.
        max_bytes: largest size of an image file; 100 MB by default.
        max_pixels: largest number of pixels of an image; 90 million by default.

    Raises:
        UsageError: no such folder, splits that cannot be told from classes, fewer than two classes, different classes
            for testing and training, or a class with too few images to split.
        KbnnError: images cannot be decoded; the message has their number and names the first ones.

    Example:
        >>> kbnn.datasets.load_folder("flowers", transform=Transform(resize=72, size=64, flip=True))
    """
    check_share(validation)
    transform = transform or Transform(resize=256, size=224)
    reader = _FolderReader(
        transform.resize or transform.size,
        unreadable,
        Limits(max_bytes or Limits.bytes, max_pixels or Limits.pixels),
        LeftOut(),
    )
    classes, splits = reader.splits(walk.layout(Path(path), reader.left_out), validation)
    return Dataset(Path(path).resolve().name, tuple(classes), IMAGENET, *splits, transform, str(reader.left_out))


@dataclass(frozen=True)
class _FolderReader:
    """Reads the images of all splits with the same settings."""

    side: int | None
    unreadable: Unreadable
    limits: Limits
    left_out: LeftOut

    def splits(self, layout: walk.Layout, validation: float) -> tuple[list[str], tuple[Encoded, Encoded, Encoded]]:
        """The names of the classes, and the training, validation and test split; missing ones are held out."""
        classes, images = self.read(layout.train)
        train = np.arange(len(images.labels))
        if layout.test is None:
            train, part = held_out(images.labels, TEST, SEED, classes)
            test = images.take(part)
        else:
            test = self._split(layout.test, layout.train, classes)
        if layout.validation is None:
            rest, part = held_out(images.labels[train], validation, SEED, classes)
            return classes, (images.take(train[rest]), images.take(train[part]), test)
        return classes, (images.take(train), self._split(layout.validation, layout.train, classes), test)

    def _split(self, folder: Path, other: Path, classes: list[str]) -> Encoded:
        """All images of a split that must have the same classes as another one."""
        found, images = self.read(folder)
        _check_same_classes(other, classes, folder, found)
        return images.take(np.arange(len(images.labels)))

    def read(self, folder: Path) -> tuple[list[str], Images]:
        """The names of the classes in a split's folder, and all its images."""
        children = walk.folders(folder, self.left_out)
        files = {child.name: walk.files(child, self.left_out, children) for child in children}
        paths = [path for found in files.values() for path in found]
        with pictures.pillow_without_limit(), ThreadPoolExecutor() as pool:
            results = list(pool.map(self._load, paths))
        names = [path.relative_to(folder) for path in paths]
        problems = [(f"{name} ({result})", result) for name, result in zip(names, results, strict=True)]
        bad = [(text, result) for text, result in problems if isinstance(result, UnreadableImageError)]
        empty = [name for name, found in files.items() if not found]
        self._report(folder, bad, empty)

        good = [
            (name.parts[0], *result) for name, result in zip(names, results, strict=True) if isinstance(result, tuple)
        ]
        present = {name for name, _, _ in good}
        classes = [name for name in files if name in present]
        if len(classes) < 2:
            raise UsageError(_too_few_classes(folder, children, classes))
        labels = np.array([classes.index(name) for name, _, _ in good], np.int32)
        records = np.array([record for _, record, _ in good], object)
        digests = np.array([digest for _, _, digest in good], object)
        # Shuffled, so that the first images, which calibrate and verify converted files, are of all classes.
        mixed = np.random.default_rng(SEED).permutation(len(records))
        return classes, Images(records[mixed], labels[mixed], digests[mixed])

    def _load(self, path: Path) -> tuple[bytes, bytes] | UnreadableImageError:
        """The encoded image and the digest of its file, or the reason why it cannot be decoded."""
        try:
            content = pictures.read(path, self.limits)
            return pictures.prepare(content, self.limits, self.side), hashlib.sha256(content).digest()
        except UnreadableImageError as error:
            return error

    def _report(self, folder: Path, bad: Sequence[tuple[str, object]], empty: Sequence[str]) -> None:
        listed = [text for text, _ in bad] + [f"{name}/ (no images)" for name in empty]
        if not listed:
            return
        named = ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
        found = f"{len(listed)} in '{folder}' cannot be read: {named}"
        if self.unreadable == "refuse":
            limit = next(
                (error.parameter for _, error in bad if isinstance(error, KbnnError) and error.parameter), None
            )
            raise KbnnError(
                f"{found}; remove them, {f'raise {limit}, ' if limit else ''}or leave them out with unreadable='skip'",
                parameter="unreadable",
            )
        self.left_out.add("damaged, too large or not images", len(bad))
        if empty:
            self.left_out.add("classes without images", len(empty))
        logger.warning("left out: %s", printable(found))


def _too_few_classes(folder: Path, children: Sequence[Path], classes: Sequence[str]) -> str:
    have = f"'{folder}' has images of {len(classes)} class(es){': ' + classes[0] if classes else ''}"
    if len(children) == 1 and len(walk.folders(children[0], LeftOut())) > 1:
        return f"{have}; its sub-folder '{children[0]}' has sub-folders of its own, give that one"
    return f"{have}; give a folder that has a sub-folder of images for each of two or more classes"


def _check_same_classes(first: Path, train: list[str], second: Path, other: list[str]) -> None:
    if train == other:
        return
    missing = sorted(set(train) ^ set(other))
    raise UsageError(
        f"'{first}' has {len(train)} classes and '{second}' has {len(other)}: '{missing[0]}' is only in one of them; "
        f"give both the same sub-folders"
    )
