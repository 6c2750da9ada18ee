"""Pooling, means, and normalization with the statistics of each sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.operations.operation import Operation


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """The maximum or the mean over windows, without the padding. `kind` is "max" or "mean"."""

    kind: str
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str

    @property
    def moves_values(self) -> bool:
        return True

    @property
    def is_max_pool(self) -> bool:
        return self.kind == "max"

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        function = tf.nn.max_pool2d if self.is_max_pool else tf.nn.avg_pool2d
        return function(x, self.size, self.strides, self.padding.upper())

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [{0: shift}]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return surplus

    def permuted(self, order: np.ndarray) -> "Pool":
        return self


@dataclass(frozen=True, eq=False)
class GlobalMean(Operation):
    """The mean of each channel: `(B, H, W, C)` to `(B, C)`."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(x, axis=[1, 2])

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return surplus

    def permuted(self, order: np.ndarray) -> "GlobalMean":
        return self


@dataclass(frozen=True, eq=False)
class Normalize(Operation):
    """(x - mean)/√(var + ε)·scale_c + offset_c, mean and variance over height, width and a group's channels.

    It is computed as x·a + (offset - mean·a) with a = scale/√(mean(x²) - mean² + ε), which takes two passes over the
    values. Means are taken in two stages, for which the runtime has fast kernels.
    """

    groups: int
    epsilon: float
    scale: np.ndarray
    offset: np.ndarray

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        mean, square = _mean(x, self.groups), _mean(x * x, self.groups)
        factor = tf.math.rsqrt(square - mean * mean + self.epsilon)
        scale = _per_channel(factor, self.scale, self.groups)
        shift = _per_channel(mean, np.ones(len(self.scale)), self.groups) * scale
        return x * scale + (tf.constant(self.offset, tf.float32) - shift) if np.any(self.offset) else x * scale - shift

    def then_affine(self, scale: np.ndarray, offset: np.ndarray) -> "Normalize":
        return replace(self, scale=self.scale * scale, offset=self.offset * scale + offset)

    def permuted(self, order: np.ndarray) -> "Normalize | None":
        return replace(self, scale=self.scale[order], offset=self.offset[order]) if self.groups == 1 else None

    def same_sign(self) -> Operation:
        """Without an offset, and with positive scales, the sign is that of x - mean."""
        return self if np.any(self.offset) or not np.all(self.scale > 0) else Centre(self.groups)


@dataclass(frozen=True, eq=False)
class Centre(Operation):
    """x - mean over height, width and a group's channels: the part of a normalization that a sign depends on."""

    groups: int

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return x - _per_channel(_mean(x, self.groups), np.ones(x.shape[-1]), self.groups)

    def permuted(self, order: np.ndarray) -> "Centre | None":
        return self if self.groups == 1 else None


def _mean(x: tf.Tensor, groups: int) -> tf.Tensor:
    """The mean of each group: `(B, 1, 1, 1)`, or `(B, 1, groups, 1)`."""
    pixels = tf.reduce_mean(x, [1, 2], keepdims=True)
    if groups > 1:
        pixels = tf.reshape(pixels, [-1, 1, groups, x.shape[-1] // groups])
    return tf.reduce_mean(pixels, 3, keepdims=True)


def _per_channel(value: tf.Tensor, factors: np.ndarray, groups: int) -> tf.Tensor:
    """Each group's value times the factors of its channels, in a shape that broadcasts against `(B, H, W, C)`."""
    if groups == 1:
        return value if np.all(factors == 1.0) else value * tf.constant(factors, tf.float32)
    by_group = tf.constant(factors.reshape(1, 1, groups, -1), tf.float32)
    return tf.reshape(value * by_group, [-1, 1, 1, len(factors)])
