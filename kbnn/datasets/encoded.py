"""Images that are kept encoded and decoded batch by batch, because they are too many or too large for memory."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from kbnn.datasets.transform import Transform, random_part, random_places
from kbnn.errors import UsageError

# Size of the shuffle buffer, in records; the order of files is shuffled as well.
BUFFER = 10_000


@dataclass(frozen=True)
class Encoded:
    """One split of encoded images (JPEG, PNG, GIF, BMP) of any size, three channels.

    `read(seed)` returns every `(bytes, label)` once, in an order that depends only on the integer tensor `seed` `(2,)`;
    `read(None)` always returns them in the same order.
    """

    size: int
    read: Callable[[tf.Tensor | None], tf.data.Dataset]
    # SHA-256 of the images' files, or another text that identifies them.
    digest: str = ""
    # All labels in order, if they are known without reading the split.
    known_labels: np.ndarray | None = field(default=None, compare=False)

    @property
    def labels(self) -> np.ndarray:
        """All labels, in order; reads the whole split if they are not known yet."""
        if self.known_labels is not None:
            return self.known_labels
        return np.fromiter((label for _, label in self.read(None).as_numpy_iterator()), np.int32, self.size)

    def take(self, indices: np.ndarray) -> "Encoded":
        """The images with these indices, in the split's order."""
        chosen = tf.constant(np.unique(indices), tf.int64)

        def read(seed: tf.Tensor | None) -> tf.data.Dataset:
            places = self.read(seed).enumerate()
            kept = places.filter(lambda place, _: tf.reduce_any(place == chosen))
            return kept.map(lambda _, record: record).take(len(chosen))

        digest = hashlib.sha256(self.digest.encode() + chosen.numpy().tobytes()).hexdigest()
        labels = None if self.known_labels is None else self.known_labels[chosen.numpy()]
        return replace(self, size=len(chosen), read=read, digest=digest, known_labels=labels)

    def ordered(self, batch: int, transform: Transform) -> tf.data.Dataset:
        """`(pixels, label)` batches for testing; the last batch may be smaller."""

        def prepare(record: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return central_part(decode(record), transform), label

        return self.read(None).map(prepare, tf.data.AUTOTUNE).batch(batch)

    def shuffled(
        self, batch: int, transform: Transform, seed: int, first: int, worker: int, workers: int
    ) -> tf.data.Dataset:
        """Endless `(pixels, label)` batches for training, see `Dataset.epochs`."""
        steps, share = self.size // batch, batch // workers
        order_seed, augmentation_seed = tf.unstack(tf.random.split([seed, 0]))

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            # The seed of this function's graph: tf.data combines it with every seed, and fails if it is unset.
            tf.random.set_seed(1)
            file_seed, buffer_seed = tf.unstack(tf.random.split(tf.random.fold_in(order_seed, epoch)))
            records = self.read(file_seed).shuffle(
                min(self.size, BUFFER), seed=tf.cast(buffer_seed[0], tf.int64), reshuffle_each_iteration=False
            )
            batches = records.batch(batch, drop_remainder=True).take(steps)
            return batches.enumerate(tf.cast(epoch, tf.int64) * steps)

        def own_part(place: tf.Tensor, records: tuple[tf.Tensor, tf.Tensor]) -> tf.data.Dataset:
            within = tf.range(worker * share, (worker + 1) * share, dtype=tf.int64)
            mine = slice(worker * share, (worker + 1) * share)
            return tf.data.Dataset.from_tensor_slices((records[0][mine], records[1][mine], place * batch + within))

        def prepare(record: tf.Tensor, label: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return training_part(decode(record), transform, tf.random.fold_in(augmentation_seed, place)), label

        epochs = tf.data.Dataset.range(first // steps, tf.int32.max, output_type=tf.int32)
        # Skipped steps are not decoded.
        records = epochs.flat_map(order).skip(first % steps).flat_map(own_part)
        return records.map(prepare, tf.data.AUTOTUNE, deterministic=True).batch(share, drop_remainder=True)


def decode(record: tf.Tensor) -> tf.Tensor:
    """Pixels `(H, W, 3)` of an encoded image, or of the first frame of an animation."""
    image = tf.io.decode_image(record, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def central_part(image: tf.Tensor, transform: Transform) -> tf.Tensor:
    """The centre crop of one image `(H, W, 3)` of any size, like `Transform.testing`."""
    side = _side(transform)
    return centre(image, (side, side), transform.resize or side, square=transform.square)


def centre(image: tf.Tensor, shape: tuple[int, int], shorter_side: int, *, square: bool = False) -> tf.Tensor:
    """The centre of one image `(H, W, C)` of any size, bilinearly resized to `shape` with antialiasing.

    As much of the image is kept as if its shorter side, or with `square` each side, were resized to `shorter_side`
    pixels, and `shape` then cut out.
    """
    height, width = _extent(image, shape, shorter_side, square)
    begin = [(tf.shape(image)[0] - height) // 2, (tf.shape(image)[1] - width) // 2, 0]
    return _cut(image, begin, height, width, shape)


def training_part(image: tf.Tensor, transform: Transform, seed: tf.Tensor) -> tf.Tensor:
    """A random crop of one image `(H, W, 3)` of any size, like `Transform.training`.

    Cropping before resizing gives the same result with less work.
    """
    part_seed, flip_seed = tf.unstack(tf.random.split(seed))
    part = _random_cut(image, transform, part_seed)
    if not transform.flip:
        return part
    return tf.where(tf.random.stateless_uniform([], flip_seed) < 0.5, tf.reverse(part, [1]), part)


def _random_cut(image: tf.Tensor, transform: Transform, seed: tf.Tensor) -> tf.Tensor:
    side = _side(transform)
    if transform.scale is not None:
        return random_part(image, side, transform.scale, seed)
    height, width = _extent(image, (side, side), transform.resize or side, transform.square)
    top, left = tf.unstack(random_places(1, tf.shape(image)[0] - height + 1, tf.shape(image)[1] - width + 1, seed)[0])
    return _cut(image, [top, left, 0], height, width, (side, side))


def _extent(image: tf.Tensor, shape: tuple[int, int], shorter_side: int, square: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width, in pixels of the stored image, of a crop that is `shape` after resizing to `shorter_side`."""
    sides = tf.shape(image)[:2]
    shares = tf.constant([size / shorter_side for size in shape], tf.float32)
    reference = sides if square else tf.fill([2], tf.reduce_min(sides))
    extent = tf.cast(tf.round(tf.cast(reference, tf.float32) * shares), tf.int32)
    return tf.maximum(extent[0], 1), tf.maximum(extent[1], 1)


def _cut(
    image: tf.Tensor, begin: list[tf.Tensor], height: tf.Tensor, width: tf.Tensor, shape: tuple[int, int]
) -> tf.Tensor:
    part = tf.slice(image, begin, [height, width, -1])
    return tf.image.resize(part, shape, antialias=True)


def _side(transform: Transform) -> int:
    if transform.size is None:
        raise UsageError("images of different sizes cannot be batched: give the size of the network's input")
    return transform.size
