"""Functions as one XLA computation: a chain of elementwise operations then reads and writes its tensor once."""

import functools
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# "0" in the environment leaves XLA out: slower, the same numbers, nothing to compile at the start.
VARIABLE = "KBNN_XLA"

# A tensor, or several in a tuple.
Sums = Any

_PARTS = 8


@functools.cache
def available() -> bool:
    """Whether this TensorFlow compiles with XLA for the device it computes on, and the environment lets it."""
    if os.environ.get(VARIABLE) == "0":
        return False
    with tf.init_scope():
        try:
            tf.function(lambda x: x + x, jit_compile=True)(tf.constant(1.0))
        except (tf.errors.OpError, ValueError, NotImplementedError):
            return False
    return True


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors, compiled with XLA where there is one and run as it is elsewhere."""
    jitted = tf.function(function, jit_compile=True, autograph=False)

    @tf.autograph.experimental.do_not_convert
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return jitted(*args) if available() else function(*args)

    return call


def widen(x: tf.Tensor) -> tf.Tensor:
    """`x` in float32. bfloat16 is its upper half: shifting it there vectorises where XLA's own conversion does not."""
    if x.dtype != tf.bfloat16:
        return tf.cast(x, tf.float32)
    bits = tf.cast(tf.bitcast(x, tf.uint16), tf.uint32)
    return tf.bitcast(tf.bitwise.left_shift(bits, tf.constant(16, tf.uint32)), tf.float32)


def narrow(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """float32 `x` in `dtype`; to bfloat16 by rounding the bits to nearest even, as the conversion does."""
    if dtype != tf.bfloat16:
        return tf.cast(x, dtype)
    bits = tf.bitcast(x, tf.uint32)
    half = tf.constant(16, tf.uint32)
    odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, half), tf.constant(1, tf.uint32))
    rounded = bits + tf.constant(0x7FFF, tf.uint32) + odd
    return tf.bitcast(tf.cast(tf.bitwise.right_shift(rounded, half), tf.uint16), tf.bfloat16)


def partial_sums(function: Callable[..., Sums], *activations: tf.Tensor) -> Sums:
    """Σ over positions of function(*activations), in part: `(B, ..., C)` to `(rows, C)`, to be used when compiled.

    XLA's own reductions on a CPU are up to ten times slower than an elementwise pass over the same data. So the
    positions are split in eight, and the eighths are added up element by element: one pass, and nothing of the
    size of the activations is written. `total` does the rest.
    """
    flat = [tf.reshape(x, [-1, x.shape[-1]]) for x in activations]
    size = tf.shape(flat[0])[0] // _PARTS
    parts = [function(*(x[k * size : (k + 1) * size] for x in flat)) for k in range(_PARTS)]
    while len(parts) > 1:
        parts = [tf.nest.map_structure(tf.add, *pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    rest = function(*(x[_PARTS * size :] for x in flat))
    return tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), parts[0], rest)


def total(sums: Sums) -> Sums:
    """`(rows, C)` to `(C,)`, not to be compiled: TensorFlow's reduction is faster than XLA's."""
    return tf.nest.map_structure(lambda rows: tf.reduce_sum(rows, 0), sums)
