"""Operations on each value by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.operations.operation import FIXED_LIMITS, Operation
from kbnn.converters.graph.operations.replacements import called
from kbnn.converters.graph.rounding import rounded_between_extremes, rounded_tensor


@dataclass(frozen=True, eq=False)
class Sign(Operation):
    """+1 where x >= 0, else -1, as literals, because the converter does not recognize computed constants."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.where(x >= 0.0, 1.0, -1.0)

    def permuted(self, order: np.ndarray) -> "Sign":
        return self


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """x·scale + offset per channel; a scale of 1 or an offset of 0 adds no operator."""

    scale: np.ndarray
    offset: np.ndarray

    @staticmethod
    def shift(offset: np.ndarray) -> "Affine":
        """x + offset."""
        return Affine(np.ones(len(offset)), offset)

    @property
    def is_shift(self) -> bool:
        return bool(np.all(self.scale == 1.0))

    @property
    def is_identity(self) -> bool:
        return self.is_shift and not np.any(self.offset)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        y = x if self.is_shift else x * tf.constant(self.scale, tf.float32)
        return y + tf.constant(self.offset, tf.float32) if np.any(self.offset) else y

    def then_affine(self, scale: np.ndarray, offset: np.ndarray) -> "Affine":
        """(x·a + b)·c + d = x·ac + (bc + d)."""
        return Affine(self.scale * scale, self.offset * scale + offset)

    def raised(self, shift: np.ndarray) -> "Affine":
        return replace(self, offset=self.offset + shift)

    def compensated(self, surplus: np.ndarray) -> "Affine":
        return replace(self, offset=self.offset - self.scale * surplus)

    def permuted(self, order: np.ndarray) -> "Affine":
        return Affine(self.scale[order], self.offset[order])

    def threshold_before(self, threshold: np.ndarray) -> np.ndarray | None:
        return (threshold - self.offset) / self.scale if np.all(self.scale > 0) else None

    def with_int8_constants(self) -> "Affine":
        if self.is_shift:
            return replace(self, offset=rounded_between_extremes(self.offset))
        # TensorFlow Lite keeps a scale that is followed by an offset in float.
        return self if np.any(self.offset) else replace(self, scale=rounded_between_extremes(self.scale))


@dataclass(frozen=True, eq=False)
class PReLU(Operation):
    """x where x >= 0, else slope·x per channel; a LeakyReLU with one common slope if `is_leaky`.

    It is written as in Keras, the only form that the converter turns into a single operator.
    """

    slope: np.ndarray
    is_leaky: bool = False

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if self.is_leaky:
            return tf.nn.leaky_relu(x, float(self.slope[0]))
        is_image = len(x.shape) > 2
        slope = tf.constant(self.slope.reshape(1, 1, -1) if is_image else self.slope, tf.float32)
        return tf.nn.relu(x) + -slope * tf.nn.relu(-x)

    def permuted(self, order: np.ndarray) -> "PReLU":
        return replace(self, slope=self.slope[order])

    def threshold_before(self, threshold: np.ndarray) -> np.ndarray | None:
        if not np.all(self.slope > 0):
            return None
        return np.where(threshold >= 0, threshold, threshold / self.slope)

    def with_int8_constants(self) -> "PReLU":
        # The slope of a LeakyReLU is an attribute, which stays float.
        return self if self.is_leaky else replace(self, slope=rounded_tensor(self.slope))


# The activations that TensorFlow Lite fuses into other operators, in a form that the converter recognizes.
_FUSED: Mapping[tuple[float, float], Callable[[tf.Tensor], tf.Tensor]] = {
    (0.0, np.inf): tf.nn.relu,
    (0.0, 6.0): tf.nn.relu6,
    (-1.0, 1.0): lambda x: tf.clip_by_value(x, -1.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class Clip(Operation):
    """min(max(x, low), high): ReLU, ReLU6, hard tanh, or any other pair of bounds."""

    low: float
    high: float

    @property
    def moves_values(self) -> bool:
        """A MINIMUM or MAXIMUM has the int8 levels of its input; a fused activation has its own."""
        return not self.is_fused

    @property
    def is_fused(self) -> bool:
        return (self.low, self.high) in _FUSED

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        fused = _FUSED.get((self.low, self.high))
        if fused is not None:
            return fused(x)
        y = x if self.low == -np.inf else tf.maximum(x, self.low)
        return y if self.high == np.inf else tf.minimum(y, self.high)

    def permuted(self, order: np.ndarray) -> "Clip":
        return self

    def threshold_before(self, threshold: np.ndarray) -> np.ndarray | None:
        return threshold if np.all((self.low < threshold) & (threshold <= self.high)) else None


@dataclass(frozen=True, eq=False)
class Kept(Operation):
    """The identity, as an operator that keeps the converter from folding later operations into a convolution."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return tf.maximum(x, tf.float32.min)


# Functions that become one operator with fixed int8 levels.
_OPERATORS: dict[Callable[..., tf.Tensor], str] = {
    tf.keras.activations.softmax: "Softmax",
    tf.nn.softmax: "Softmax",
    tf.keras.activations.sigmoid: "Sigmoid",
    tf.sigmoid: "Sigmoid",
    tf.keras.activations.tanh: "Tanh",
    tf.tanh: "Tanh",
}


@dataclass(frozen=True, eq=False)
class ElementwiseFunction(Operation):
    """Any other elementwise function f; `keeps_signs` if f is strictly increasing and f(0) = 0."""

    function: Callable[[tf.Tensor], tf.Tensor]
    keeps_signs: bool = False

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.function(x) if tf.executing_eagerly() else called(self.function, x)

    @property
    def fixed_limits(self) -> tuple[float, float] | None:
        return FIXED_LIMITS.get(_OPERATORS.get(self.function, ""))

    def permuted(self, order: np.ndarray) -> "ElementwiseFunction":
        return self

    def threshold_before(self, threshold: np.ndarray) -> np.ndarray | None:
        return threshold if self.keeps_signs and not np.any(threshold) else None


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """The sum of values of the same shape."""

    def __call__(self, *inputs: tf.Tensor) -> tf.Tensor:
        total = inputs[0]
        for value in inputs[1:]:
            total = total + value
        return total

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [{source: shift} for source in range(len(channels))]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return surplus

    def permuted(self, order: np.ndarray) -> "Add":
        return self


@dataclass(frozen=True, eq=False)
class Maximum(Operation):
    """The elementwise maximum of two values of the same shape."""

    @property
    def moves_values(self) -> bool:
        return True

    def __call__(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return tf.maximum(first, second)

    def permuted(self, order: np.ndarray) -> "Maximum":
        return self


@dataclass(frozen=True, eq=False)
class Subtract(Operation):
    """The first value minus the second one, of the same shape."""

    def __call__(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return first - second

    def ways_to_raise(self, shift: np.ndarray, channels: Sequence[int]) -> list[Mapping[int, np.ndarray]]:
        return [{0: shift}, {1: -shift}]

    def surplus(self, surplus: np.ndarray, source: int, channels: Sequence[int]) -> np.ndarray:
        return surplus if source == 0 else -surplus

    def permuted(self, order: np.ndarray) -> "Subtract":
        return self
