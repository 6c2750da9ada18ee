"""The operations of the intermediate form, each written as the converter recognises it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

Shape = tuple[int, ...]


class Operation:
    """A function of tensors with a batch dimension."""

    def __call__(self, *inputs: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Input(Operation):
    """The network's input of the node's name."""

    dtype: tf.DType = tf.float32


@dataclass(frozen=True, eq=False)
class Sign(Operation):
    """+1 where x >= 0, else -1. The literals matter: the converter does not look through computed constants."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.where(x >= 0.0, 1.0, -1.0)


@dataclass(frozen=True, eq=False)
class BinaryConvolution(Operation):
    """Signs convolved with a kernel of signs `(kh, kw, C / groups, filters)`.

    The kernel is part of a Keras layer's: `rows[g]` are the input channels of Keras's group that group `g` reads,
    `filters` are Keras's filters, so that every bit can be traced back. `call` numbers the use of the layer.
    """

    call: int
    signs: np.ndarray
    rows: np.ndarray
    filters: np.ndarray
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    pad_value: float

    @property
    def groups(self) -> int:
        return len(self.rows)

    @property
    def kernel(self) -> np.ndarray:
        """The signs that this operation convolves with, in its own order of channels and filters."""
        per_group = self.filters.reshape(self.groups, -1)
        parts = [self.signs[:, :, rows][..., own] for rows, own in zip(self.rows, per_group, strict=True)]
        return np.concatenate(parts, axis=-1)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.constant(self.kernel, tf.float32)
        if not any(any(sides) for sides in self.padding):
            return tf.nn.conv2d(x, kernel, self.strides, "VALID", dilations=self.dilations)
        if self.pad_value == 0.0:
            return tf.nn.conv2d(x, kernel, self.strides, "SAME", dilations=self.dilations)
        padded = tf.pad(x, [(0, 0), *self.padding, (0, 0)], constant_values=self.pad_value)
        return tf.nn.conv2d(padded, kernel, self.strides, "VALID", dilations=self.dilations)


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """A real convolution with a kernel `(kh, kw, C / groups, filters)` and a bias."""

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: str
    groups: int = 1

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.constant(self.kernel, tf.float32)
        y = tf.nn.conv2d(x, kernel, self.strides, self.padding.upper(), dilations=self.dilations)
        return _biased(y, self.bias)


@dataclass(frozen=True, eq=False)
class Dense(Operation):
    """x·W + b, W of `(inputs, outputs)`."""

    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return _biased(tf.matmul(x, tf.constant(self.kernel, tf.float32)), self.bias)


def _biased(y: tf.Tensor, bias: np.ndarray) -> tf.Tensor:
    """The converter leaves out a bias of zeros, and with it the name of the value."""
    return tf.nn.bias_add(y, tf.constant(bias, tf.float32)) if np.any(bias) else y


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """x·scale + offset per channel; what does nothing is left out."""

    scale: np.ndarray
    offset: np.ndarray

    @property
    def is_shift(self) -> bool:
        return bool(np.all(self.scale == 1.0))

    @property
    def is_identity(self) -> bool:
        return self.is_shift and not np.any(self.offset)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y = x if self.is_shift else x * tf.constant(self.scale, tf.float32)
        return y + tf.constant(self.offset, tf.float32) if np.any(self.offset) else y


@dataclass(frozen=True, eq=False)
class PReLU(Operation):
    """x where x >= 0, else slope·x per channel, written as Keras writes it: no other form stays one operator."""

    slope: np.ndarray

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        slope = tf.constant(self.slope.reshape(1, 1, -1), tf.float32)
        return tf.nn.relu(x) + -slope * tf.nn.relu(-x)


@dataclass(frozen=True, eq=False)
class Normalize(Operation):
    """(x - mean)/√(var + ε)·scale_c + offset_c, mean and variance over height, width and a group's channels.

    With a = scale/√(mean(x²) - mean² + ε) it is x·a + (offset - mean·a): two passes over the values, all else is per
    channel. Means are taken in two stages, which the runtime has fast code for.
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


@dataclass(frozen=True, eq=False)
class Centre(Operation):
    """x - mean over height, width and a group's channels: what of a normalization a sign can see."""

    groups: int

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return x - _per_channel(_mean(x, self.groups), np.ones(x.shape[-1]), self.groups)


def _mean(x: tf.Tensor, groups: int) -> tf.Tensor:
    """The mean of each group: `(B, 1, 1, 1)`, or `(B, 1, groups, 1)`."""
    pixels = tf.reduce_mean(x, [1, 2], keepdims=True)
    if groups > 1:
        pixels = tf.reshape(pixels, [-1, 1, groups, x.shape[-1] // groups])
    return tf.reduce_mean(pixels, 3, keepdims=True)


def _per_channel(value: tf.Tensor, factors: np.ndarray, groups: int) -> tf.Tensor:
    """Each group's value times the factors of its channels, in a shape that broadcasts to `(B, H, W, C)`."""
    if groups == 1:
        return value if np.all(factors == 1.0) else value * tf.constant(factors, tf.float32)
    by_group = tf.constant(factors.reshape(1, 1, groups, -1), tf.float32)
    return tf.reshape(value * by_group, [-1, 1, 1, len(factors)])


@dataclass(frozen=True, eq=False)
class Kept(Operation):
    """A value as it is, which the converter does not fold what follows into."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.maximum(x, tf.float32.min)


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of values of one shape."""

    def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
        total = inputs[0]
        for value in inputs[1:]:
            total = total + value
        return total


@dataclass(frozen=True, eq=False)
class Concatenate(Operation):
    """The channels of one value after those of another."""

    def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
        return tf.concat(inputs, axis=-1)


@dataclass(frozen=True, eq=False)
class PadChannels(Operation):
    """Channels of zeros before and after those of a value."""

    before: int
    after: int

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), (0, 0), (0, 0), (self.before, self.after)])


@dataclass(frozen=True, eq=False)
class Split(Operation):
    """The channels in equal parts; `Part` picks one."""

    parts: int

    def __call__(self, x: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(x, self.parts, axis=-1)


@dataclass(frozen=True, eq=False)
class Part(Operation):
    """One part of a `Split`."""

    index: int

    def __call__(self, parts: list[tf.Tensor]) -> tf.Tensor:
        return parts[self.index]


@dataclass(frozen=True, eq=False)
class Shuffle(Operation):
    """Channel `g·C/G + i` goes to `i·G + g`: the groups are interleaved."""

    groups: int

    def order(self, channels: int) -> np.ndarray:
        """Which input channel each output channel is."""
        return np.arange(channels).reshape(self.groups, -1).T.ravel()

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        _, height, width, channels = x.shape
        y = tf.reshape(x, [-1, height, width, self.groups, channels // self.groups])
        return tf.reshape(tf.transpose(y, [0, 1, 2, 4, 3]), [-1, height, width, channels])


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """Maximum or mean of windows; the mean leaves padding out."""

    kind: str
    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        function = tf.nn.max_pool2d if self.kind == "max" else tf.nn.avg_pool2d
        return function(x, self.size, self.strides, self.padding.upper())


@dataclass(frozen=True, eq=False)
class GlobalMean(Operation):
    """The mean of each channel: `(B, H, W, C)` to `(B, C)`."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(x, axis=[1, 2])


@dataclass(frozen=True, eq=False)
class Reshape(Operation):
    """The same values in another shape."""

    shape: Shape

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, *self.shape])


@dataclass(frozen=True, eq=False)
class Pad(Operation):
    """A border of one value around the image."""

    padding: tuple[tuple[int, int], tuple[int, int]]
    value: float

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.pad(x, [(0, 0), *self.padding, (0, 0)], constant_values=self.value)


@dataclass(frozen=True, eq=False)
class Function(Operation):
    """An elementwise function, such as an activation."""

    function: Callable[[tf.Tensor], tf.Tensor]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.function(x)


@dataclass(frozen=True, eq=False)
class Opaque(Operation):
    """A Keras layer as it is, for those that no rule knows.

    It is called with the arguments it was called with, the tensors `names` among them replaced; `operations` are what
    it made in Keras's graph.
    """

    layer: Any
    arguments: Any
    names: Sequence[str]
    operations: Sequence[str]

    def __call__(self, *inputs: tf.Tensor) -> Any:
        given = dict(zip(self.names, inputs, strict=True))
        args, kwargs = tf.nest.map_structure(
            lambda value: given[value.name] if tf.is_tensor(value) and value.name in given else value, self.arguments
        )
        outputs = tf.nest.flatten(self.layer(*args, **kwargs))
        return outputs[0] if len(outputs) == 1 else outputs
