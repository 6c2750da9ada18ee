"""What a data set is: labelled images, how pixels become network input, and batches of them."""

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
        counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
        levels, total = np.arange(256), counts.sum(1)
        mean = counts @ levels / total
        std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 1.0))
        return Normalization(tuple(np.round(mean, 2).tolist()), tuple(np.round(std, 2).tolist()))


# Of ImageNet's training images, as everybody takes them.
IMAGENET = Normalization((123.68, 116.78, 103.94), (58.40, 57.12, 57.38))


@dataclass(frozen=True)
class Dataset:
    """Images in three splits: `train`, `validation` (held out of the training set; chooses) and `test` (read last).

    Raises:
        UsageError: a transform that these images cannot take.
    """

    name: str
    classes: tuple[str, ...]
    normalization: Normalization
    train: Split
    validation: Split
    test: Split
    transform: Transform = field(default_factory=Transform)

    def __post_init__(self) -> None:
        if isinstance(self.train, Arrays):
            return
        if self.transform.size is None:
            raise UsageError(f"images of data set '{self.name}' differ in size: received size=None, choose one")
        if self.transform.pad:
            raise UsageError(f"images of data set '{self.name}' differ in size: give resize instead of pad")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the network's input."""
        if isinstance(self.train, Arrays):
            return self.transform.shape(self.train.shape)
        return self.transform.shape((0, 0, 3))

    def inputs(self, split: Split, limit: int | None = None) -> np.ndarray:
        """The network's input for the images of a split, in order: float32 `(N, H, W, C)`; the first `limit` ones."""
        count = split.size if limit is None else min(limit, split.size)
        if count == 0:
            return np.zeros((0, *self.input_shape), np.float32)
        batches = [images.numpy() for images, _ in self.batches(split, min(count, 500)).take(-(-count // 500))]
        return np.concatenate(batches)[:count]

    def batches(self, split: Split, batch: int) -> tf.data.Dataset:
        """`(input, label)` batches of a split in order, the last one smaller when the size asks for it."""
        return self._normalized(split.ordered(batch, self.transform))

    def steps(self, batch: int) -> int:
        """Training steps in an epoch; images that do not fill a batch wait for another epoch's order.

        Raises:
            UsageError: the batch is larger than the training split, or not positive.
        """
        if not 1 <= batch <= self.train.size:
            raise UsageError(
                f"batch size does not fit data set '{self.name}': received {batch}, choose 1 to {self.train.size}"
            )
        return self.train.size // batch

    def epochs(self, batch: int, *, seed: int, first: int = 0, worker: int = 0, workers: int = 1) -> tf.data.Dataset:
        """Endless training batches from step `first` on, `steps(batch)` of them an epoch.

        Order and augmentation of a batch depend on nothing but the seed, the epoch and the place in it, so a run
        that resumes sees what an uninterrupted one would have seen.

        Args:
            batch: images of a step, over all workers.
            seed: of order and augmentation.
            first: steps to leave out.
            worker: which part of each batch to give, when several processes share the work.
            workers: how many parts.

        Raises:
            UsageError: as `steps`, or a batch that the workers cannot share.
        """
        self.steps(batch)
        if batch % workers:
            raise UsageError(f"{workers} workers cannot share a batch of {batch}: choose a multiple of {workers}")
        return self._normalized(self.train.shuffled(batch, self.transform, seed, first, worker, workers))

    def _normalized(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        normalized = batches.map(lambda x, y: (self.normalization(x), y), tf.data.AUTOTUNE, deterministic=True)
        return normalized.prefetch(tf.data.AUTOTUNE)


def held_out(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rest and of a stratified random part of `fraction`, the same for the same seed.

    Raises:
        UsageError: the fraction is not in [0, 1), or too small for one image per class.
    """
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(labels))
    if fraction == 0:
        return indices, indices[:0]
    try:
        rest, part = train_test_split(indices, test_size=fraction, random_state=seed, stratify=labels)
    except ValueError as error:
        raise UsageError(
            f"cannot hold out a part of the data with every class in it: received {fraction:g} of {len(labels)} images "
            f"of {len(np.unique(labels))} classes, the smallest of {np.bincount(labels)[np.unique(labels)].min()}; "
            f"give more images, or another share to validate on (--set data.validation=0)"
        ) from error
    return rest, part


def split_off(arrays: Arrays, fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """The rest and a stratified part of labelled images."""
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
    """A data set from its training and test images; the pixel statistics are those of all training images."""
    normalization = Normalization.of(train.images)
    rest, part = split_off(train, validation, seed)
    return Dataset(name, tuple(classes), normalization, rest, part, test, transform)
