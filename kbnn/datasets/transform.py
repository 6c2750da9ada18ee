"""Augments, resizes and crops images, in whole batches where possible."""

from dataclasses import dataclass

import tensorflow as tf

from kbnn.errors import UsageError

# Width over height of a random part of an image (the usual range, Szegedy et al. 2015).
ASPECTS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Transform:
    """Augmentation, resizing and cropping of images before they are normalized.

    Training: shift by up to `pad` pixels (filled with zeros), mirror half of the images, resize, crop `size` at random.
    Testing: resize, crop `size` from the centre. Random numbers are drawn per image; the same seed gives the same
    batch. The usual augmentation of CIFAR is `pad=4, flip=True` (He et al. 2016, section 4.2), that of ImageNet
    `resize=256, size=224, flip=True`.

    Args:
        pad: largest shift, in pixels.
        flip: mirror left and right with probability 1/2.
        resize: length of the shorter side before cropping; None for no resizing.
        square: resize both sides to `resize`, whatever the shape.
        size: height and width of the network's input; None for no cropping.
        scale: smallest and largest share of the area. In training, instead of resizing, crops a random part of that
            area and stretches it to `size`.

    Raises:
        UsageError: a size larger than `resize`, `square` without `resize`, or a `scale` that is not a range of shares
            or comes without a size.
    """

    pad: int = 0
    flip: bool = False
    resize: int | None = None
    square: bool = False
    size: int | None = None
    scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.resize is not None and self.size > self.resize:
            raise UsageError(f"cannot crop size={self.size} from resize={self.resize} pixels: make resize larger")
        if self.square and self.resize is None:
            raise UsageError("square resizes both sides: received resize=None with it, give resize or leave it out")
        if self.scale is None:
            return
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"crop scale is not a range of shares: received {self.scale}, choose 0 < low <= high <= 1")
        if self.size is None:
            raise UsageError("crop scale needs a size to stretch to: received size=None, give one")

    def shape(self, stored: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of the network's input for stored images of shape `(H, W, C)`."""
        height, width = (self.size, self.size) if self.size else self._resized(stored[:2])
        return (height, width, stored[2])

    def training(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Transforms images `(B, H, W, C)` for training; `seed` is an integer tensor `(2,)`."""
        shift_seed, crop_seed = tf.unstack(tf.random.split(seed))
        if self.pad or self.flip:
            pad = self.pad
            padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
            images = _windows(padded, tuple(images.shape[1:3]), shift_seed, mirrored=self.flip)
        if self.scale is not None and self.size is not None:
            return _random_parts(images, self.size, self.scale, crop_seed)
        images = self._resize(images)
        return _windows(images, (self.size, self.size), crop_seed) if self.size else images

    def testing(self, images: tf.Tensor) -> tf.Tensor:
        """Transforms images `(B, H, W, C)` for testing."""
        images = self._resize(images)
        if self.size is None:
            return images
        _check_fits(images, (self.size, self.size))
        top, left = ((side - self.size) // 2 for side in images.shape[1:3])
        return images[:, top : top + self.size, left : left + self.size]

    def _resize(self, images: tf.Tensor) -> tf.Tensor:
        if self.resize is None:
            return images
        return tf.image.resize(images, self._resized(tuple(images.shape[1:3])), antialias=True)

    def _resized(self, shape: tuple[int, int]) -> tuple[int, int]:
        if self.resize is None:
            return shape
        if self.square:
            return (self.resize, self.resize)
        height, width = (round(side * self.resize / min(shape)) for side in shape)
        return (height, width)


def _windows(images: tf.Tensor, window: tuple[int, int], seed: tf.Tensor, *, mirrored: bool = False) -> tf.Tensor:
    """A window at a random position of each image `(B, H, W, C)`; if `mirrored`, half of them are mirrored.

    A single gather of pixels is three times as fast as one pass per step.
    """
    _check_fits(images, window)
    height, width = images.shape[1:3]
    batch = tf.shape(images)[0]
    place_seed, flip_seed = tf.unstack(tf.random.split(seed))
    places = random_places(batch, height - window[0] + 1, width - window[1] + 1, place_seed)
    rows = places[:, :1] + tf.range(window[0])
    columns = places[:, 1:] + tf.range(window[1])
    if mirrored:
        flipped = tf.random.stateless_uniform([batch, 1], flip_seed) < 0.5
        columns = tf.where(flipped, columns[:, ::-1], columns)
    lines = tf.range(batch)[:, tf.newaxis] * height + rows
    pixels = lines[:, :, tf.newaxis] * width + columns[:, tf.newaxis, :]
    return tf.gather(tf.reshape(images, [-1, images.shape[-1]]), pixels)


def random_places(count: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Uniform random integers `(count, 2)`, below `rows` and below `columns`."""
    limits = tf.cast([rows, columns], tf.float32)
    return tf.cast(tf.random.stateless_uniform([count, 2], seed) * limits, tf.int32)


def _random_parts(images: tf.Tensor, size: int, scale: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    seeds = tf.random.experimental.stateless_split(seed, tf.shape(images)[0])

    def part(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return random_part(inputs[0], size, scale, inputs[1])

    return tf.map_fn(part, (images, seeds), fn_output_signature=tf.float32)


def random_part(image: tf.Tensor, size: int, scale: tuple[float, float], seed: tf.Tensor) -> tf.Tensor:
    """A random part of one image `(H, W, C)`, with a share of its area in `scale`, stretched to `(size, size, C)`."""
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image), whole, seed, area_range=scale, aspect_ratio_range=ASPECTS, min_object_covered=0.0
    )
    return tf.image.resize(tf.slice(image, begin, extent), [size, size], antialias=True)


def _check_fits(images: tf.Tensor, window: tuple[int, int]) -> None:
    height, width = images.shape[1:3]
    if height < window[0] or width < window[1]:
        raise UsageError(f"cannot crop {window[0]}x{window[1]} from {height}x{width} pixels: give resize")
