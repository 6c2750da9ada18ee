"""Data sets: labelled images in three splits, their normalization, and batches of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from kbnn.datasets.arrays import Arrays
from kbnn.datasets.encoded import Encoded
from kbnn.datasets.transform import Transform
from kbnn.errors import UsageError

Split = Arrays | Encoded


@dataclass(frozen=True)
class Normalization:
    """`(pixel - mean) / std` per channel, of pixel values 0..255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """Network input in float32 from pixels `(..., C)`."""
        return (tf.cast(pixels, tf.float32) - tf.constant(self.mean)) / tf.constant(self.std)

    @staticmethod
    def of(images: np.ndarray) -> "Normalization":
        """The channel means and standard deviations of uint8 images `(N, H, W, C)`, rounded to 0.01 grey levels."""
        counts = np.zeros((images.shape[-1], 256), np.int64)
        # Counted in parts, because `bincount` copies its input to 64 bits a value.
        for start in range(0, len(images), 1000):
            for channel, count in enumerate(counts):
                count += np.bincount(images[start : start + 1000, ..., channel].ravel(), minlength=256)
        levels, total = np.arange(256), counts.sum(1)
        mean = counts @ levels / total
        std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 1.0))
        return Normalization(tuple(np.round(mean, 2).tolist()), tuple(np.round(std, 2).tolist()))


# ImageNet's usual channel means and standard deviations.
IMAGENET = Normalization((123.68, 116.78, 103.94), (58.40, 57.12, 57.38))


@dataclass(frozen=True)
class Fingerprint:
    """Identifies the images of a training; `counts` is empty if counting would have to read all images."""

    name: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    digest: str

    def difference(self, other: "Fingerprint") -> str | None:
        """A description of the first difference from another fingerprint; None if they are equal."""
        missing = sorted(set(self.classes) - set(other.classes))
        new = sorted(set(other.classes) - set(self.classes))
        changes = [f"class '{name}' is missing" for name in missing[:1]] + [
            f"class '{name}' is new" for name in new[:1]
        ]
        if changes:
            return " and ".join(changes)
        if self.classes != other.classes:
            return f"its classes are in another order: {', '.join(other.classes[:5])}"
        for name, mine, theirs in zip(self.classes, self.counts, other.counts, strict=False):
            if mine != theirs:
                return f"class '{name}' has {theirs} images instead of {mine}"
        return None if self.digest == other.digest else "the images have changed, although their number has not"


@dataclass(frozen=True)
class Dataset:
    """Images in three splits: `train`, `validation` (for model selection) and `test` (for the final evaluation).

    Args:
        name: name of the data set.
        classes: names of the classes, in the order of the labels.
        normalization: maps pixels to the network's input.
        train: training images.
        validation: images held out from the training set.
        test: test images.
        transform: augmentation, resizing and cropping.
        left_out: which files of a folder were left out, and why; empty if all were used.

    Raises:
        UsageError: the transform does not fit these images.
    """

    name: str
    classes: tuple[str, ...]
    normalization: Normalization
    train: Split
    validation: Split
    test: Split
    transform: Transform = field(default_factory=Transform)
    left_out: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.train, Arrays):
            return
        if self.transform.size is None:
            raise UsageError(f"images of data set '{self.name}' differ in size: received size=None, choose a size")
        if self.transform.pad:
            raise UsageError(f"images of data set '{self.name}' differ in size: give resize instead of pad")

    @property
    def summary(self) -> str:
        """One line with the number of images, the classes, the splits, and what was left out."""
        some = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        sizes = f"{self.train.size} to train, {self.validation.size} to validate, {self.test.size} to test"
        total = self.train.size + self.validation.size + self.test.size
        text = f"{self.name}: {total} images of {len(self.classes)} classes ({some}): {sizes}"
        return f"{text}; left out: {self.left_out}" if self.left_out else text

    @property
    def takes_pixels(self) -> bool:
        """Whether the normalization is of pixel values 0..255: not for float images, whose scale is not known."""
        return not isinstance(self.train, Arrays) or self.train.images.dtype == np.uint8

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the network's input."""
        if isinstance(self.train, Arrays):
            return self.transform.shape(self.train.shape)
        return self.transform.shape((0, 0, 3))

    @property
    def framing(self) -> Transform:
        """How a picture of any size is resized and cropped like the images of the test split."""
        resize, size = self.transform.resize, self.transform.size
        if resize is None and size is not None and isinstance(self.train, Arrays):
            # These images are cropped as they are stored.
            resize = min(self.train.shape[:2])
        return Transform(resize=resize, square=self.transform.square, size=size)

    def check_fits(self, input_shape: object, outputs: object, what: str = "the model") -> None:
        """Raises UsageError unless a network with this input shape `(H, W, C)` and number of outputs fits the data."""
        if input_shape != self.input_shape or outputs != len(self.classes):
            raise UsageError(
                f"{what} does not fit data set '{self.name}': received input {input_shape} and {outputs} classes, "
                f"the data has {self.input_shape} and {len(self.classes)}"
            )

    def fingerprint(self) -> Fingerprint:
        """Identifies the training images: class names, number of images per class, and a digest."""
        splits = [split for split in (self.train, self.validation) if split.size]
        counts: tuple[int, ...] = ()
        if all(isinstance(split, Arrays) or split.known_labels is not None for split in splits):
            labels = np.concatenate([split.labels for split in splits])
            counts = tuple(np.bincount(labels, minlength=len(self.classes)).tolist())
        digest = hashlib.sha256(" ".join(split.digest for split in splits).encode()).hexdigest()
        return Fingerprint(self.name, self.classes, counts, digest)

    def inputs(self, split: Split, limit: int | None = None) -> np.ndarray:
        """The network's input for the first `limit` (or all) images of a split, in order: float32 `(N, H, W, C)`."""
        count = split.size if limit is None else min(limit, split.size)
        if count == 0:
            return np.zeros((0, *self.input_shape), np.float32)
        batches = [images.numpy() for images, _ in self.batches(split, min(count, 500)).take(-(-count // 500))]
        return np.concatenate(batches)[:count]

    def calibration(self, count: int = 256) -> np.ndarray:
        """The network's input for the first training images, to calibrate a file in int8: float32 `(N, H, W, C)`."""
        return self.inputs(self.train, count)

    def batches(self, split: Split, batch: int) -> tf.data.Dataset:
        """`(input, label)` batches of a split, in order; the last batch may be smaller."""
        return self._normalized(split.ordered(batch, self.transform))

    def steps(self, batch: int) -> int:
        """Training steps in an epoch. The last images of an epoch are skipped if they do not fill a batch.

        Raises:
            UsageError: the batch is larger than the training split, or not positive.
        """
        if not 1 <= batch <= self.train.size:
            raise UsageError(
                f"batch size does not fit data set '{self.name}': received {batch}, choose 1 to {self.train.size}"
            )
        return self.train.size // batch

    def epochs(self, batch: int, *, seed: int, first: int = 0, worker: int = 0, workers: int = 1) -> tf.data.Dataset:
        """An endless stream of training batches that starts with step `first`; an epoch has `steps(batch)` of them.

        The order and augmentation of a batch depend only on the seed, the epoch and the position within it, so a
        resumed run sees the same images as an uninterrupted one.

        Args:
            batch: images per step, over all workers.
            seed: seed of order and augmentation.
            first: number of steps to skip.
            worker: index of the part of each batch to return, if several processes share the work.
            workers: number of parts.

        Raises:
            UsageError: as for `steps`, or a batch that cannot be split evenly among the workers.
        """
        self.steps(batch)
        if batch % workers:
            raise UsageError(f"{workers} workers cannot share a batch of {batch}: choose a multiple of {workers}")
        return self._normalized(self.train.shuffled(batch, self.transform, seed, first, worker, workers))

    def _normalized(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        normalized = batches.map(lambda x, y: (self.normalization(x), y), tf.data.AUTOTUNE, deterministic=True)
        return normalized.prefetch(tf.data.AUTOTUNE)


def held_out(
    labels: np.ndarray, fraction: float, seed: int, classes: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Splits images at random, stratified by class.

    Args:
        labels: class of each image.
        fraction: share to hold out.
        seed: the same seed gives the same split.
        classes: names of the classes, for error messages.

    Returns:
        Indices of the rest, and of the held-out part. Both contain at least one image of each class.

    Raises:
        UsageError: a class has only one image.
    """
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(labels))
    if fraction == 0:
        return indices, indices[:0]
    present, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        label = present[counts.argmin()]
        name = classes[label] if classes else label
        raise UsageError(
            f"class '{name}' has only one image to split into training and held-out images: add images of '{name}' "
            f"(two for a test split, three if a validation split is held out as well), or remove the class"
        )
    try:
        rest, part = train_test_split(indices, test_size=fraction, random_state=seed, stratify=labels)
    except ValueError:
        return _held_out_by_class(labels, fraction, seed)
    if len(np.unique(labels[part])) < len(present):
        return _held_out_by_class(labels, fraction, seed)
    return rest, part


def _held_out_by_class(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits a few images: at least one image of each class is held out, whatever the share."""
    generator = np.random.default_rng(seed)
    part: list[int] = []
    for label in np.unique(labels):
        mine = generator.permutation(np.flatnonzero(labels == label))
        part.extend(mine[: min(max(round(fraction * len(mine)), 1), len(mine) - 1)].tolist())
    chosen = np.array(sorted(part))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def split_off(arrays: Arrays, fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """Splits labelled images, as `held_out` does."""
    rest, part = held_out(arrays.labels, fraction, seed)
    return arrays.take(rest), arrays.take(part)


def assemble(
    name: str,
    classes: Sequence[str],
    train: Arrays,
    test: Arrays,
    *,
    validation: float,
    seed: int,
    transform: Transform,
) -> Dataset:
    """A data set of training and test images, normalized by the mean and standard deviation of the training images."""
    normalization = Normalization.of(train.images)
    rest, part = split_off(train, validation, seed)
    return Dataset(name, tuple(classes), normalization, rest, part, test, transform)
