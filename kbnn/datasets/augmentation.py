"""Random crops and flips of whole batches, reproducible from a seed."""

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Augmentation:
    """Pads by `pad` pixels of zeros, crops each image back to its size at a random place, mirrors half of them.

    Every image draws its own offset and its own flip; the whole batch is done at once. The same seed gives the same
    batch. (CIFAR's usual augmentation: `pad=4, flip=True`, He et al. 2016, section 4.2.)
    """

    pad: int = 0
    flip: bool = False

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments images `(B, H, W, C)` of any dtype; `seed` is an integer tensor `(2,)`."""
        offset_seed, flip_seed = tf.unstack(tf.random.split(seed))
        if self.flip:
            images = _flip(images, flip_seed)
        if self.pad:
            images = _crop(images, self.pad, offset_seed)
        return images


def _flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    chosen = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < 0.5
    return tf.where(chosen, tf.reverse(images, [2]), images)


def _crop(images: tf.Tensor, pad: int, seed: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(images)
    offsets = tf.random.stateless_uniform([shape[0], 2], seed, maxval=2 * pad + 1, dtype=tf.int32)
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    rows = offsets[:, :1] + tf.range(shape[1])
    columns = offsets[:, 1:] + tf.range(shape[2])
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
