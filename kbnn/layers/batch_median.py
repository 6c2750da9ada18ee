"""Batch median of activations (BMA)."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kbnn import selection
from kbnn._keras import Config
from kbnn.compiled import compiled, narrow, partial_sums, total, widen
from kbnn.constraints import Positive
from kbnn.errors import UsageError
from kbnn.layers.channels import add_float32_weight, known_channels, parametric_relu
from kbnn.layers.rematerialization import attach
from kbnn.quantizers.base import power_of_two

# The median of a layer's activations is estimated from about this many of them: every s-th position of the batch with
# all its channels, where s is one of the strides below. Except for 3 and 9, none shares a factor with the usual widths
# of feature maps, so that the sample covers all columns.
SAMPLE = 81920
# At least this many positions: those of one image are similar, so a few are not representative even with many channels.
LEAST_ROWS = 512
STRIDES = np.array([1, 3, 9, *(s for s in range(11, 10_000) if all(s % prime for prime in (2, 3, 5, 7)))], np.int32)


def sample_rows(x: tf.Tensor) -> tf.Tensor:
    """Evenly spaced positions of `(B, ..., C)` activations with all channels: `(rows, C)`, at least one row.

    Each replica takes its share of the sample that a single device would take from the whole batch.
    """
    rows = _rows(x, max(max(SAMPLE // x.shape[-1], LEAST_ROWS) // _replicas(), 1))
    return tf.ensure_shape(rows, [None, x.shape[-1]])


@compiled
def _rows(x: tf.Tensor, wanted: int) -> tf.Tensor:
    rows = tf.reshape(x, [-1, x.shape[-1]])
    # Rounds up to the next stride as long as the sample keeps at least two thirds of the wanted rows.
    longest = 3 * (tf.shape(rows)[0] // wanted) // 2
    nearest = tf.searchsorted(STRIDES, [longest], side="right")[0] - 1
    return rows[:: tf.gather(STRIDES, tf.maximum(nearest, 0))]


@compiled
def _median_and_unit(sample: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """The median, and a power of two near the largest magnitude; divided by it, no value overflows when squared."""
    values = widen(sample)
    by_column = partial_sums(tf.abs, values, add=tf.maximum)
    largest = tf.maximum(tf.reduce_max(by_column), tf.reduce_max(tf.abs(beta)))
    return tf.stack([selection.median(values), tf.minimum(power_of_two(largest), 2.0**126)])


def median_of(x: tf.Tensor) -> tf.Tensor:
    """ω: the median of all activations of the batch, estimated from a sample, in float32; passes no gradient."""
    sample = _gathered_over_replicas(tf.stop_gradient(sample_rows(x)))
    return _median_and_unit(sample, tf.zeros(1))[0]


def _moved(x: tf.Tensor, beta: tf.Tensor, median: tf.Tensor, unit: tf.Tensor) -> tf.Tensor:
    """m = A - ω + β_c, in units of `unit`."""
    return widen(x) * (1 / unit) + (beta / unit - median / unit)


@compiled
def _side_sums(x: tf.Tensor, beta: tf.Tensor, median: tf.Tensor, unit: tf.Tensor) -> tf.Tensor:
    """Partial sums of m₊², n₊, m₋², n₋, m₊, m₋."""

    def terms(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        m = _moved(x, beta, median, unit)
        positive, negative = tf.maximum(m, 0.0), tf.minimum(m, 0.0)
        return (
            positive * positive,
            tf.cast(m > 0, tf.float32),
            negative * negative,
            tf.cast(m < 0, tf.float32),
            positive,
            negative,
        )

    return partial_sums(terms, x)


def _scales(sums: tf.Tensor, unit: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """s₊, s₋ from `_side_sums`, in units of `unit`; 1 for an empty side."""
    squares, counts = sums[::2], sums[1::2]
    scales = tf.where(squares > 0, tf.sqrt(squares / tf.maximum(counts, 1.0)), 1 / unit)
    return scales[0], scales[1]


@compiled
def _normalized(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, median: tf.Tensor, unit: tf.Tensor, sums: tf.Tensor
) -> tf.Tensor:
    m = _moved(x, beta, median, unit)
    positive, negative = _scales(sums, unit)
    return narrow(m * tf.where(m < 0, gamma / negative, gamma / positive), x.dtype)


@compiled
def _gradient_sums(
    x: tf.Tensor, dy: tf.Tensor, beta: tf.Tensor, median: tf.Tensor, unit: tf.Tensor, sums: tf.Tensor
) -> tf.Tensor:
    """Partial sums of dy·m/s and of dy, each over the positive and over the negative entries."""
    positive, negative = _scales(sums, unit)

    def terms(x: tf.Tensor, dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
        m, dy = _moved(x, beta, median, unit), widen(dy)
        product = dy * m
        return (
            tf.where(m < 0, 0.0, product * (1 / positive)),
            tf.where(m < 0, product * (1 / negative), 0.0),
            tf.where(m < 0, 0.0, dy),
            tf.where(m < 0, dy, 0.0),
        )

    return partial_sums(terms, x, dy)


@compiled
def _gradients(
    x: tf.Tensor,
    dy: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    median: tf.Tensor,
    unit: tf.Tensor,
    sums: tf.Tensor,
    through_scales: tf.Tensor,
    entries: tf.Tensor,
    dy_sums: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """dL/dx and its sums over positions, dL/dβ_c; `entries` and `dy_sums` are the sums of m and dy of each side."""
    scales = _scales(sums, unit)
    # The gradient through the scale subtracts m/s·(Σ γ·dy·m/s)/n of the same side.
    shares = tf.unstack(tf.where(sums[::2] > 0, through_scales / tf.maximum(sums[1::2], 1.0), 0.0))

    def through(side: int, m: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
        return (gamma * dy - m * (shares[side] / scales[side])) * (1 / scales[side])

    m, wide = _moved(x, beta, median, unit), widen(dy)
    dm = tf.where(m < 0, through(1, m, wide), through(0, m, wide))
    dbeta = through(0, entries[0], dy_sums[0]) + through(1, entries[1], dy_sums[1])
    return narrow(dm / unit, dy.dtype), dbeta / unit


def _replicas() -> int:
    replica = tf.distribute.get_replica_context()
    return 1 if replica is None else int(replica.num_replicas_in_sync)


def _summed_over_replicas(x: tf.Tensor) -> tf.Tensor:
    if _replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def _gathered_over_replicas(x: tf.Tensor) -> tf.Tensor:
    if _replicas() == 1:
        return x
    # Gathering loses the static shape.
    return tf.ensure_shape(tf.distribute.get_replica_context().all_gather(x, axis=0), [None, *x.shape[1:]])


def batch_median(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """γ_c·m/s₊ where m >= 0, else γ_c·m/s₋, with m = A - ω + β_c; and ω, s₊ and s₋ of the batch over all replicas.

    ω passes no gradient, s₊ and s₋ do: with y' = m/s and n entries on the side of an entry,
    dL/dA = (γ_c·dy - y'·(Σ γ·dy·y' of the side)/n)/s, dL/dβ_c = Σ dL/dA, dL/dγ_c = Σ dy·y' of the channel.
    """
    sample = _gathered_over_replicas(tf.stop_gradient(sample_rows(x)))
    median, unit = tf.unstack(_median_and_unit(sample, tf.stop_gradient(beta)))
    by_channel = total(_side_sums(x, beta, median, unit))
    sums, entries = _summed_over_replicas(tf.reduce_sum(by_channel[:4], 1)), by_channel[4:]

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable[..., object]]:
        def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            gradient_sums = total(_gradient_sums(x, dy, beta, median, unit, sums))
            dgamma, dy_sums = gradient_sums[:2], gradient_sums[2:]
            through_scales = _summed_over_replicas(tf.reduce_sum(gamma * dgamma, 1))
            dx, dbeta = _gradients(x, dy, gamma, beta, median, unit, sums, through_scales, entries, dy_sums)
            return dx, tf.reduce_sum(dgamma, 0), dbeta

        return _normalized(x, gamma, beta, median, unit, sums), gradient

    positive, negative = _scales(tf.stop_gradient(sums), unit)
    largest = tf.float32.max
    return (
        attach(normalize(x, gamma, beta), _normalized, x, gamma, beta, median, unit, sums),
        median,
        tf.minimum(positive * unit, largest),
        tf.minimum(negative * unit, largest),
    )


@tf.keras.utils.register_keras_serializable(package="kbnn")
class BatchMedian(tf.keras.layers.Layer):
    """Centres activations on their median before the sign and scales each side: `(B, ..., C)` to the same shape.

    m = A - ω + β_c, ω the median of all activations of the batch, one scalar;
    y = γ_c·m/s₊ where m > 0, γ_c·m/s₋ where m < 0, s± = √(Σ m±²/n±), 1 for a side without entries.
    Gradient: ω passes none; s₊ and s₋ do. β_c starts at 0, γ_c > 0 at 1.

    In training, the statistics are those of the batch over all replicas. At inference, and in a frozen layer
    (`trainable = False`), they are moving averages, which start at 0, 1 and 1. The scales do not change the sign of a
    value: followed by a sign, the layer is exactly the threshold A >= ω - β_c, which `threshold()` returns.

    Args:
        momentum: momentum of the moving averages.

    Raises:
        UsageError: an unknown number of channels, or a momentum outside 0..1.

    Example:
        >>> kbnn.layers.BatchMedian()(tf.random.normal((8, 16, 16, 64)), training=True)

    The scales and their gradient follow the paper. On held-out CIFAR-10 images, three seeds each of this layer, of
    scales without a gradient, of no scales, and of the mean instead of the median all reach 34.6 to 36.4 %, within the
    spread of the seeds (`results/variants.csv`; `benchmarks/variants.py`).

    Source: ML+BMA, equations 11 and 12.
    Deviates from the paper: the median is estimated from an evenly spaced sample; sorting all activations would cost
    more than the convolution behind it. Over 272 medians of activations of CIFAR-10 images in ResNet-20 and Bi-Real-18,
    its rank error is 0.11 % on average and at most 0.49 % (`results/median_rank.csv`; `benchmarks/median_rank.py`).
    """

    def __init__(self, momentum: float = 0.99, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1:
            raise UsageError(f"{self.name}: momentum must be in 0..1, received {momentum}")
        self.momentum = momentum

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = (known_channels(self, input_shape),)
        self.gamma = add_float32_weight(self, "gamma", shape, "ones", Positive())
        self.beta = add_float32_weight(self, "beta", shape, "zeros")
        self.moving_median = self._add_moving_average("moving_median", "zeros")
        self.moving_positive_rms = self._add_moving_average("moving_positive_rms", "ones")
        self.moving_negative_rms = self._add_moving_average("moving_negative_rms", "ones")
        super().build(input_shape)

    def _add_moving_average(self, name: str, initializer: str) -> tf.Variable:
        return self.add_weight(
            name,
            (),
            dtype=tf.float32,
            initializer=initializer,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
            experimental_autocast=False,
        )

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if training is None or not self.trainable:
            return self._by_averages(inputs)
        return tf.__internal__.smart_cond.smart_cond(
            training, lambda: self._by_batch(inputs), lambda: self._by_averages(inputs)
        )

    def _by_batch(self, inputs: tf.Tensor) -> tf.Tensor:
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        outputs, median, positive, negative = batch_median(inputs, gamma, beta)
        self._average(self.moving_median, median)
        self._average(self.moving_positive_rms, positive)
        self._average(self.moving_negative_rms, negative)
        return outputs

    def _average(self, average: tf.Variable, value: tf.Tensor) -> None:
        average.assign_sub((average - value) * (1 - self.momentum))

    def _by_averages(self, inputs: tf.Tensor) -> tf.Tensor:
        # A constant per channel and a PReLU: a form that the converter supports.
        m = tf.cast(inputs, tf.float32) - self.threshold()
        slope = self.moving_positive_rms / self.moving_negative_rms
        return _cast_with_sign(parametric_relu(m * (self.gamma / self.moving_positive_rms), slope), inputs.dtype)

    def threshold(self) -> tf.Tensor:
        """ω - β_c per channel, `(C,)` float32: at inference, sign(y) is +1 exactly where A >= ω - β_c."""
        return self.moving_median - self.beta

    def get_config(self) -> Config:
        return {**super().get_config(), "momentum": self.momentum}


def _cast_with_sign(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`x` in `dtype`. In float16, negative values that would underflow stay negative, because a sign follows."""
    if dtype != tf.float16:
        return tf.cast(x, dtype)
    least = tf.constant(2.0**-14, tf.float16)
    return tf.where(x < 0, tf.minimum(tf.cast(x, dtype), -least), tf.cast(x, dtype))
