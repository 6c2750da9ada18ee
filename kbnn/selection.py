"""Order statistics without sorting, from the bits of floating-point numbers, which have the same order as integers.

A threshold is found bit by bit, from the highest one, by counting the values above it. The result is exact and takes 31
or 32 passes over the data. For kernels, a few passes are compiled together and reused; for activations, they are a
loop. Without XLA, as during export, the data is sorted: hundreds of operations would take longer to build and to run.
"""

from collections.abc import Callable

import tensorflow as tf

from kbnn.compiled import compiled, compiling, partial_sums

_BITS_AT_ONCE = 4


def largest(magnitude: tf.Tensor, k: tf.Tensor | int) -> tf.Tensor:
    """A mask of the k largest float32 magnitudes of each column; among equal ones, the first are marked.

    k is a number, or a tensor with a number >= 1 for each column.
    """
    if isinstance(k, int) and k == 0:
        return tf.zeros_like(magnitude, tf.bool)
    count = tf.convert_to_tensor(k, tf.int32)
    if not compiling():
        return _first_marked(magnitude, _kth_by_sorting(magnitude, count), count)
    threshold = tf.zeros(magnitude.shape[-1:], tf.int32)
    for bit in range(30, -1, -_BITS_AT_ONCE):
        threshold = _with_next_bits(magnitude, threshold, tf.constant(bit), count)
    return _marked(magnitude, threshold, count)


def _kth_by_sorting(x: tf.Tensor, k: tf.Tensor | int) -> tf.Tensor:
    descending = tf.sort(x, axis=0, direction="DESCENDING")
    column = tf.range(tf.shape(x)[1])
    return tf.gather_nd(descending, tf.stack([tf.broadcast_to(k - 1, tf.shape(column)), column], 1))


def _first_marked(magnitude: tf.Tensor, threshold: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    above, equal = magnitude > threshold, tf.equal(magnitude, threshold)
    left = k - tf.math.count_nonzero(above, 0, dtype=tf.int32)
    return above | equal & (tf.cumsum(tf.cast(equal, tf.int32)) <= left)


@compiled
def _with_next_bits(magnitude: tf.Tensor, threshold: tf.Tensor, bit: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    key = _magnitude_key(magnitude)
    for offset in range(_BITS_AT_ONCE):
        # There is no bit below the lowest one.
        by = tf.where(bit >= offset, tf.bitwise.left_shift(1, tf.maximum(bit - offset, 0)), 0)
        threshold = _raised(key, threshold, by, k)
    return threshold


@compiled
def _marked(magnitude: tf.Tensor, threshold: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    key = _magnitude_key(magnitude)
    rows = key.shape[0]
    row = tf.range(rows)[:, tf.newaxis]
    # Values above the threshold come first, then those equal to it in the order of their rows.
    place = tf.where(key > threshold, -1, tf.where(tf.equal(key, threshold), row, rows))
    end = tf.zeros_like(threshold)
    for bit in range(rows.bit_length() - 1, -1, -1):
        further = end + 2**bit
        end = tf.where(_count_below(further, place) <= k, further, end)
    return place < end


def _magnitude_key(magnitude: tf.Tensor) -> tf.Tensor:
    # As an integer, -0.0 would be below every threshold.
    return tf.maximum(tf.bitcast(magnitude, tf.int32), 0)


def kth_largest(x: tf.Tensor, k: tf.Tensor | int) -> tf.Tensor:
    """The k-th largest value of each column of float32 `x` `(rows, columns)`, k from 1: shape `(columns,)`."""
    if not compiling():
        return _kth_by_sorting(x, k)
    key = _ordered(x)
    threshold = tf.where(_count(lambda key: key >= 0, key) >= k, tf.constant(0, tf.int32), tf.int32.min)

    def refine(bit: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return bit - 1, _raised(key, threshold, tf.bitwise.left_shift(1, bit), k)

    _, threshold = tf.while_loop(lambda bit, _: bit >= 0, refine, (30, threshold))
    return _unordered(threshold)


def median(x: tf.Tensor) -> tf.Tensor:
    """The median of all float32 values of `x`, a scalar; for an even number, the mean of the two middle values."""
    column = tf.reshape(x, [-1, 1])
    n = tf.shape(column)[0]
    upper = kth_largest(column, (n + 1) // 2)
    # The other middle value is equal to `upper`, or the largest value below it.
    below = partial_sums(lambda column: tf.where(column < upper, column, x.dtype.min), column, add=tf.maximum)
    reached = _count(lambda column: column >= upper, column) >= n // 2 + 1
    lower = tf.where(reached, upper, tf.reduce_max(below))
    return tf.reshape(upper / 2 + lower / 2, [])


def _ordered(x: tf.Tensor) -> tf.Tensor:
    bits = tf.bitcast(x, tf.int32)
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, tf.int32.max), bits)


def _unordered(key: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(tf.where(key < 0, tf.bitwise.bitwise_xor(key, tf.int32.max), key), tf.float32)


def _count(chosen: Callable[[tf.Tensor], tf.Tensor], values: tf.Tensor) -> tf.Tensor:
    """The number of chosen values in each column."""
    return tf.reduce_sum(partial_sums(lambda values: tf.cast(chosen(values), tf.int32), values), 0)


def _count_below(end: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return _count(lambda values: values < end, values)


def _raised(key: tf.Tensor, threshold: tf.Tensor, by: tf.Tensor | int, k: tf.Tensor | int) -> tf.Tensor:
    """`threshold` + `by` where at least k values reach it, else `threshold`."""
    higher = threshold + by
    return tf.where(_count(lambda key: key >= higher, key) >= k, higher, threshold)
