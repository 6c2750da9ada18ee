"""What a data set is: labelled images, how pixels become network input, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn.datasets.augmentation import Augmentation
from kbnn.errors import UsageError


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


@dataclass(frozen=True)
class Arrays:
    """One split held in memory: uint8 images `(N, H, W, C)` and int32 labels `(N,)`."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "Arrays":
        return Arrays(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """Images in three splits: `train`, `validation` (held out of the training set; chooses) and `test` (read last)."""

    name: str
    classes: tuple[str, ...]
    normalization: Normalization
    train: Arrays
    validation: Arrays
    test: Arrays

    @property
    def input_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def inputs(self, split: Arrays) -> np.ndarray:
        """The network's input for all images of a split, in order: float32 `(N, H, W, C)`."""
        return self.normalization(split.images).numpy()

    def batches(self, split: Arrays, batch: int) -> tf.data.Dataset:
        """`(input, label)` batches of a split in order, the last one smaller when the size asks for it."""
        pixels = tf.data.Dataset.from_tensor_slices((split.images, split.labels)).batch(batch)
        return pixels.map(lambda x, y: (self.normalization(x), y), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

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

    def epochs(self, batch: int, augmentation: Augmentation, *, seed: int, first: int = 0) -> tf.data.Dataset:
        """Endless training batches from epoch `first` on, `steps(batch)` of them an epoch.

        Order and augmentation of a batch depend on nothing but the seed, the epoch and the place in it, so a run
        that resumes sees what an uninterrupted one would have seen.
        """
        steps, size = self.steps(batch), self.train.size
        images, labels = tf.constant(self.train.images), tf.constant(self.train.labels)

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            shuffled = tf.random.experimental.stateless_shuffle(tf.range(size), seed=tf.stack([seed, epoch]))
            indices = tf.reshape(shuffled[: steps * batch], [steps, batch])
            places = tf.range(epoch * steps, (epoch + 1) * steps)
            return tf.data.Dataset.from_tensor_slices((indices, places))

        def prepare(indices: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels = tf.ensure_shape(tf.gather(images, indices), [batch, *self.input_shape])
            augmented = augmentation(pixels, tf.stack([seed, place]))
            return self.normalization(augmented), tf.gather(labels, indices)

        epochs = tf.data.Dataset.range(first, tf.int32.max, output_type=tf.int32)
        return epochs.flat_map(order).map(prepare, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


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
        raise UsageError(f"cannot hold out a part of the data: received fraction {fraction}; {error}") from error
    return rest, part


def split_off(arrays: Arrays, fraction: float, seed: int) -> tuple[Arrays, Arrays]:
    """The rest and a stratified part of labelled images."""
    rest, part = held_out(arrays.labels, fraction, seed)
    return arrays.take(rest), arrays.take(part)


def assemble(
    name: str, classes: Sequence[str], train: Arrays, test: Arrays, *, validation: float, seed: int
) -> Dataset:
    """A data set from its training and test images; the pixel statistics are those of all training images."""
    normalization = Normalization.of(train.images)
    rest, part = split_off(train, validation, seed)
    return Dataset(name, tuple(classes), normalization, rest, part, test)
