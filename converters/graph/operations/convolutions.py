"""Convolutions and matrix products, binary and real-valued."""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.operations.operation import Operation
from kbnn.converters.graph.rounding import rounded_kernel, rounded_tensor

# The `call` of a binary convolution whose kernel does not come from a layer.
NO_LAYER = -1

Sides = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class BinaryConvolution(Operation):
    """Signs convolved with a kernel of signs `(kh, kw, C / groups, filters)`.

    The kernel is a part of a Keras layer's kernel: group `g` reads the input channels `rows[g]` of Keras's group, and
    `filters` are the numbers of Keras's filters, so every bit can be traced back. `call` is the number of the layer's
    call. The converter folds a following affine map into the operator.
    """

    call: int
    signs: np.ndarray
    rows: np.ndarray
    filters: np.ndarray
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: Sides
    pad_value: float

    convolves = True

    @property
    def groups(self) -> int:
        return len(self.rows)

    @property
    def kernel(self) -> np.ndarray:
        """The kernel in this operation's own order of channels and filters."""
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

    def writing(self, order: np.ndarray) -> "BinaryConvolution | None":
        return replace(self, filters=self.filters[order]) if self.groups == 1 else None

    def reading(self, order: np.ndarray) -> "BinaryConvolution | None":
        return replace(self, rows=self.rows[:, order]) if self.groups == 1 else None


@dataclass(frozen=True, eq=False)
class _Linear(Operation):
    """A kernel `(..., filters)` and a bias per filter."""

    kernel: np.ndarray
    bias: np.ndarray

    convolves = True

    def then_affine(self, scale: np.ndarray, offset: np.ndarray) -> Operation:
        """(W·x + b)·a + c = aW·x + (ba + c)."""
        return replace(self, kernel=self.kernel * scale, bias=self.bias * scale + offset)

    def raised(self, shift: np.ndarray) -> Operation:
        return replace(self, bias=self.bias + shift)

    def _biased(self, y: tf.Tensor) -> tf.Tensor:
        """Adds the bias unless it is zero: the converter drops a zero bias, and the value's name with it."""
        return tf.nn.bias_add(y, tf.constant(self.bias, tf.float32)) if np.any(self.bias) else y


@dataclass(frozen=True, eq=False)
class Convolution(_Linear):
    """A real-valued convolution with a kernel `(kh, kw, C / groups, filters)`."""

    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: str
    groups: int = 1

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.constant(self.kernel, tf.float32)
        return self._biased(
            tf.nn.conv2d(x, kernel, self.strides, self.padding.upper(), dilations=self.dilations),
        )

    def compensated(self, surplus: np.ndarray) -> "Convolution | None":
        """None with zero padding, which has no surplus: at the border the bias would subtract too much."""
        if self.padding != "valid":
            return None
        summed = self.kernel.sum((0, 1)).reshape(len(surplus) // self.groups, self.groups, -1)
        convolved = np.einsum("gc,cgf->gf", surplus.reshape(self.groups, -1), summed).ravel()
        return replace(self, bias=self.bias - convolved)

    def writing(self, order: np.ndarray) -> "Convolution | None":
        return replace(self, kernel=self.kernel[..., order], bias=self.bias[order]) if self.groups == 1 else None

    def reading(self, order: np.ndarray) -> "Convolution | None":
        return replace(self, kernel=self.kernel[:, :, order]) if self.groups == 1 else None

    def with_int8_constants(self) -> "Convolution":
        return replace(self, kernel=rounded_kernel(self.kernel))


@dataclass(frozen=True, eq=False)
class DepthwiseConvolution(_Linear):
    """Convolves each channel with its own filters; the kernel is `(kh, kw, 1, C·multiplier)`, ordered by channel."""

    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: str
    multiplier: int = 1

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        height, width = self.kernel.shape[:2]
        kernel = tf.constant(self.kernel.reshape(height, width, -1, self.multiplier), tf.float32)
        strides = (1, *self.strides, 1)
        return self._biased(tf.nn.depthwise_conv2d(x, kernel, strides, self.padding.upper(), dilations=self.dilations))

    def compensated(self, surplus: np.ndarray) -> "DepthwiseConvolution | None":
        if self.padding != "valid":
            return None
        convolved = self.kernel.sum((0, 1, 2)) * np.repeat(surplus, self.multiplier)
        return replace(self, bias=self.bias - convolved)

    def permuted(self, order: np.ndarray) -> "DepthwiseConvolution | None":
        if self.multiplier != 1:
            return None
        return replace(self, kernel=self.kernel[..., order], bias=self.bias[order])

    def with_int8_constants(self) -> "DepthwiseConvolution":
        return replace(self, kernel=rounded_kernel(self.kernel))


@dataclass(frozen=True, eq=False)
class Dense(_Linear):
    """x·W + b with W of `(inputs, outputs)`."""

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self._biased(tf.matmul(x, tf.constant(self.kernel, tf.float32)))

    def compensated(self, surplus: np.ndarray) -> "Dense":
        return replace(self, bias=self.bias - surplus @ self.kernel)

    def reading(self, order: np.ndarray) -> "Dense":
        return replace(self, kernel=self.kernel[order])

    def with_int8_constants(self) -> "Dense":
        return replace(self, kernel=rounded_tensor(self.kernel))
