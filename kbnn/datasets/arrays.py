"""Images held in memory."""

import hashlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn.datasets.transform import Transform


@dataclass(frozen=True)
class Arrays:
    """One split held in memory: images `(N, H, W, C)`, uint8 or float32, and int32 labels `(N,)`."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The stored images' height, width and channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, indices: np.ndarray) -> "Arrays":
        return Arrays(self.images[indices], self.labels[indices])

    @property
    def digest(self) -> str:
        """SHA-256 of the images and their labels."""
        found = hashlib.sha256(f"{self.images.dtype}{self.images.shape}".encode())
        found.update(np.ascontiguousarray(self.images).data)
        found.update(np.ascontiguousarray(self.labels).data)
        return found.hexdigest()

    def ordered(self, batch: int, transform: Transform) -> tf.data.Dataset:
        """`(pixels, label)` batches for testing; the last batch may be smaller."""
        batches = tf.data.Dataset.from_tensor_slices((self.images, self.labels)).batch(batch)
        return batches.map(lambda x, y: (transform.testing(x), y), tf.data.AUTOTUNE)

    def shuffled(
        self, batch: int, transform: Transform, seed: int, first: int, worker: int, workers: int
    ) -> tf.data.Dataset:
        """Endless `(pixels, label)` batches for training, see `Dataset.epochs`."""
        size, steps = self.size, self.size // batch
        # Each worker draws for the whole batch, so that the images do not depend on the number of workers.
        part = slice(worker * batch // workers, (worker + 1) * batch // workers)
        order_seed, augmentation_seed = tf.unstack(tf.random.split([seed, 0]))
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            shuffled = tf.random.experimental.stateless_shuffle(tf.range(size), tf.random.fold_in(order_seed, epoch))
            indices = tf.reshape(shuffled[: steps * batch], [steps, batch])
            places = tf.range(epoch * steps, (epoch + 1) * steps)
            return tf.data.Dataset.from_tensor_slices((indices, places))

        def prepare(indices: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels = tf.ensure_shape(tf.gather(images, indices), [batch, *self.shape])
            augmented = transform.training(pixels, tf.random.fold_in(augmentation_seed, place))
            return augmented[part], tf.gather(labels, indices[part])

        epochs = tf.data.Dataset.range(first // steps, tf.int32.max, output_type=tf.int32)
        return epochs.flat_map(order).skip(first % steps).map(prepare, tf.data.AUTOTUNE, deterministic=True)
