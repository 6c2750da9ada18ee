"""Functions as one XLA computation: a chain of elementwise operations then reads and writes its tensor once."""

import functools
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

# "0" in the environment turns XLA off: slower steps, the same numbers, no compilation at the start.
VARIABLE = "KBNN_XLA"

# A tensor, or several in a tuple.
Sums = Any

_PARTS = 8


@functools.cache
def available() -> bool:
    """Whether this TensorFlow compiles with XLA for its device, and the environment does not turn it off."""
    if os.environ.get(VARIABLE) == "0":
        return False
    with tf.init_scope():
        try:
            tf.function(lambda x: x + x, jit_compile=True)(tf.constant(1.0))
        except (tf.errors.OpError, ValueError, NotImplementedError):
            return False
    return True


def compiling() -> bool:
    """Whether functions are compiled now; at export, for instance, they are not."""
    return available() and not tf.config.functions_run_eagerly()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors, compiled with XLA where it is available and run as it is elsewhere."""
    jitted = tf.function(function, jit_compile=True, autograph=False)

    @tf.autograph.experimental.do_not_convert
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return jitted(*args) if compiling() else function(*args)

    return call


def widen(x: tf.Tensor) -> tf.Tensor:
    """`x` in float32. bfloat16 is its upper half: a shift vectorizes, where XLA's own conversion does not."""
    if x.dtype != tf.bfloat16:
        return tf.cast(x, tf.float32)
    bits = tf.cast(tf.bitcast(x, tf.uint16), tf.uint32)
    return tf.bitcast(tf.bitwise.left_shift(bits, tf.constant(16, tf.uint32)), tf.float32)


def narrow(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """float32 `x` in `dtype`; to bfloat16 by rounding the bits to nearest even, like the conversion."""
    if dtype != tf.bfloat16:
        return tf.cast(x, dtype)
    bits = tf.bitcast(x, tf.uint32)
    half = tf.constant(16, tf.uint32)
    odd = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, half), tf.constant(1, tf.uint32))
    rounded = bits + tf.constant(0x7FFF, tf.uint32) + odd
    return tf.bitcast(tf.cast(tf.bitwise.right_shift(rounded, half), tf.uint16), tf.bfloat16)


def partial_sums(
    function: Callable[..., Sums], *activations: tf.Tensor, add: Callable[..., tf.Tensor] = tf.add
) -> tf.Tensor:
    """Partial sums over positions of function(*activations), for compiled functions: `(B, ..., C)` to `(rows, C)`.

    If the function returns a tuple of float32 tensors, their sums are stacked: `(number, rows, C)`.

    On a CPU, XLA's own reductions are up to ten times slower than an elementwise pass over the same data. So the
    positions are split into eighths, which are added element by element: one pass that writes nothing of the size of
    the activations. `total` adds up the remaining rows. With `add=tf.maximum` the result is a maximum.
    """
    flat = [tf.reshape(x, [-1, x.shape[-1]]) for x in activations]
    if not compiling():
        return _reduced(function(*flat), tf.reduce_max if add is tf.maximum else tf.reduce_sum)
    if isinstance(function(*(x[:0] for x in flat)), tuple):
        rows = _by_eighths(function, flat)
        return tf.stack(_by_eighths(lambda *rows: rows, rows))
    size = tf.shape(flat[0])[0] // _PARTS
    sums = [function(*(x[k * size : (k + 1) * size] for x in flat)) for k in range(_PARTS)]
    while len(sums) > 1:
        sums = [add(*pair) for pair in zip(sums[::2], sums[1::2], strict=True)]
    return tf.concat([sums[0], function(*(x[_PARTS * size :] for x in flat))], 0)


def _reduced(values: Sums, reduce: Callable[..., tf.Tensor]) -> tf.Tensor:
    """Each value reduced to one row."""
    if isinstance(values, tuple):
        return tf.stack([reduce(value, 0, keepdims=True) for value in values])
    return reduce(values, 0, keepdims=True)


def _by_eighths(function: Callable[..., tuple[tf.Tensor, ...]], flat: list[tf.Tensor]) -> list[tf.Tensor]:
    """The sum of the eighths of the rows, and the remaining rows."""
    size = tf.shape(flat[0])[0] // _PARTS
    values = function(*(tf.reshape(x[: _PARTS * size], [_PARTS, size, x.shape[-1]]) for x in flat))
    rest = function(*(x[_PARTS * size :] for x in flat))
    return [tf.concat(rows, 0) for rows in zip(_added_up(values), rest, strict=True)]


def _added_up(values: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
    """The sum of each tensor over its first axis, in one loop for all of them."""
    zeros = [tf.zeros((), tf.float32)] * len(values)
    return xla.variadic_reduce(list(values), zeros, dimensions_to_reduce=[0], reducer=_adder(len(values)))


@functools.cache
def _adder(number: int) -> Any:
    """The reducer that XLA needs: the sums of `number` pairs of scalars."""
    scalars = [tf.TensorSpec((), tf.float32)] * number
    with tf.init_scope():
        function = tf.function(lambda *both: tuple(map(tf.add, both[:number], both[number:])), autograph=False)
        return function.get_concrete_function(*scalars, *scalars)


def total(sums: tf.Tensor) -> tf.Tensor:
    """The sum `(..., C)` of partial sums `(..., rows, C)`; not compiled, as TensorFlow's reduction is faster."""
    return tf.reduce_sum(sums, -2)


@compiled
def _partial_channel_sums(x: tf.Tensor) -> tf.Tensor:
    return partial_sums(widen, x)


def channel_sums(x: tf.Tensor) -> tf.Tensor:
    """Σ over positions of `(B, ..., C)`, in float32: `(C,)`."""
    return total(_partial_channel_sums(x))
