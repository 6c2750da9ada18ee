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

    def order_of(self, channels: int) -> np.ndarray:
        """Which input channel each output channel is."""
        return np.arange(channels).reshape(self.groups, -1).T.ravel()

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = x.shape
        y = tf.reshape(x, [-1, height, width, self.groups, channels // self.groups])
        return tf.reshape(tf.transpose(y, [0, 1, 2, 4, 3]), [-1, height, width, channels])

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [{0: shift[np.argsort(self.order_of(len(shift)))]}]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return surplus[self.order_of(len(surplus))]


@dataclass(frozen=True, eq=False)
class Reorder(_Move):
    """The channels in another order, by one transposition of them as an array of several axes."""

    order: np.ndarray
    sizes: tuple[int, ...]
    axes: tuple[int, ...]

    @staticmethod
    def of(order: np.ndarray) -> "Reorder | None":
        """`x[..., order]`, or None where no transposition computes it."""
        # From the inside out: how many channels follow each other in equal steps.
        loops: list[tuple[int, int]] = []
        rest = order
        while len(rest) > 1:
            step = int(rest[1] - rest[0])
            size = int(np.argmin(np.append(rest == rest[0] + step * np.arange(len(rest)), False)))
            if step < 1 or len(rest) % size:
                return None
            loops.append((size, step))
            rest = rest[::size]
        loops.reverse()
        by_step = sorted(range(len(loops)), key=lambda k: -loops[k][1])
        sizes = tuple(loops[k][0] for k in by_step)
        axes = tuple(by_step.index(k) for k in range(len(loops)))
        numbers = np.arange(len(order))
        found = numbers.reshape(sizes).transpose(axes).ravel() if np.prod(sizes) == len(order) else numbers[:0]
        return Reorder(order, sizes, axes) if np.array_equal(found, order) else None

    def order_of(self, channels: int) -> np.ndarray:
        """Which input channel each output channel is."""
        return self.order

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = x.shape
        # The runtime transposes arrays of at most six axes.
        y = tf.reshape(x, [-1, height * width, *self.sizes])
        y = tf.transpose(y, [0, 1, *(axis + 2 for axis in self.axes)])
        return tf.reshape(y, [-1, height, width, channels])

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [{0: shift[np.argsort(self.order)]}]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return surplus[self.order]


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
class Window(_Move):
    """A part of the image."""

    top: int
    left: int
    height: int
    width: int

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.slice(x, [0, self.top, self.left, 0], [-1, self.height, self.width, -1])


@dataclass(frozen=True, eq=False)
class Resize(_Move):
    """The image in another size, by bilinear interpolation."""

    size: tuple[int, int]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.image.resize(x, self.size)


@dataclass(frozen=True, eq=False)
class Pad(_Move):
    """Adds a border of one value around the image."""

    padding: tuple[tuple[int, int], tuple[int, int]]
    value: float

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), *self.padding, (0, 0)], constant_values=self.value)

    def permuted(self, order: np.ndarray) -> "Pad":
        return self
