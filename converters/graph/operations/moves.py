"""Operations that move or select values without changing them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.operations.operation import Operation, Shape


class _Move(Operation):
    @property
    def moves_values(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Concatenate(_Move):
    """Concatenates values along the channels."""

    def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
        return tf.concat(inputs, axis=-1)

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [dict(enumerate(np.split(shift, np.cumsum(channels)[:-1])))]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        parts = [np.zeros(size) for size in channels]
        parts[source] = surplus
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class PadChannels(_Move):
    """Adds channels of zeros before and after those of a value."""

    before: int
    after: int

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), (0, 0), (0, 0), (self.before, self.after)])

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return np.pad(surplus, (self.before, self.after))


@dataclass(frozen=True, eq=False)
class Split(_Move):
    """Splits the channels into equal parts, of which `Part` selects one."""

    parts: int

    def __call__(self, x: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(x, self.parts, axis=-1)

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        """The surplus of all channels; each `Part` selects its own."""
        return surplus


@dataclass(frozen=True, eq=False)
class Part(_Move):
    """One of the `parts` of a `Split`; or one of the outputs of an `Opaque` operation, then `parts` is None."""

    index: int
    parts: int | None = None

    def __call__(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        return parts[self.index]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray | None:
        return np.split(surplus, self.parts)[self.index] if self.parts is not None else None


@dataclass(frozen=True, eq=False)
class Shuffle(_Move):
    """Interleaves groups of channels: channel `g·C/G + i` goes to `i·G + g`."""

    groups: int

    def order(self, channels: int) -> np.ndarray:
        """Which input channel each output channel is."""
        return np.arange(channels).reshape(self.groups, -1).T.ravel()

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = x.shape
        y = tf.reshape(x, [-1, height, width, self.groups, channels // self.groups])
        return tf.reshape(tf.transpose(y, [0, 1, 2, 4, 3]), [-1, height, width, channels])

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [{0: shift[np.argsort(self.order(len(shift)))]}]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return surplus[self.order(len(surplus))]


@dataclass(frozen=True, eq=False)
class Reshape(_Move):
    """The same values in another shape."""

    shape: Shape

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, *self.shape])

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [{0: shift}] if channels[0] == len(shift) else []

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray | None:
        size = self.shape[-1]
        return np.tile(surplus, size // len(surplus)) if size % len(surplus) == 0 else None


@dataclass(frozen=True, eq=False)
class Pad(_Move):
    """Adds a border of one value around the image."""

    padding: tuple[tuple[int, int], tuple[int, int]]
    value: float

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), *self.padding, (0, 0)], constant_values=self.value)

    def permuted(self, order: np.ndarray) -> "Pad":
        return self
