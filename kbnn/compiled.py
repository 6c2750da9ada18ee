"""Compiles functions with XLA, so that a chain of elementwise operations reads and writes its tensor only once."""

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterator
from typing import TypeAlias, TypeVar

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from kbnn._keras import is_scratch

# Set to "0" in the environment to turn XLA off: slower steps, equal results, no compilation at the start.
VARIABLE = "KBNN_XLA"

Sums: TypeAlias = tf.Tensor | tuple[tf.Tensor, ...]
Result = TypeVar("Result")

_PARTS = 8


@functools.cache
def available() -> bool:
    """Whether TensorFlow can compile with XLA on this device, and the environment does not turn it off."""
    if os.environ.get(VARIABLE) == "0":
        return False
    with tf.init_scope():
        try:
            tf.function(lambda x: x + x, jit_compile=True)(tf.constant(1.0))
        except (tf.errors.OpError, ValueError, NotImplementedError):
            return False
    return True


_uncompiled: contextvars.ContextVar[bool] = contextvars.ContextVar("uncompiled", default=False)


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """A context in which functions run as they are, because tracing them for XLA would be wasted."""
    token = _uncompiled.set(True)
    try:
        yield
    finally:
        _uncompiled.reset(token)


def compiling() -> bool:
    """Whether functions are compiled now: not at export, and not where Keras only asks for a layer's output shape."""
    if _uncompiled.get() or tf.config.functions_run_eagerly() or inferring_shapes():
        return False
    return available()


def inferring_shapes() -> bool:
    """Whether Keras is calling a layer of a functional model in a graph that it throws away."""
    return not tf.executing_eagerly() and is_scratch(tf.compat.v1.get_default_graph())


def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """Compiles a function of tensors with XLA where that is available; elsewhere it runs unchanged."""
    jitted = tf.function(function, jit_compile=True, autograph=False)

    @tf.autograph.experimental.do_not_convert
    @functools.wraps(function)
    def call(*args: object) -> Result:
        return jitted(*args) if compiling() else function(*args)

    return call


def widen(x: tf.Tensor) -> tf.Tensor:
    """Casts `x` to float32. bfloat16 is the upper half of float32: a shift vectorizes, XLA's conversion does not."""
    if x.dtype != tf.bfloat16:
        return tf.cast(x, tf.float32)
    bits = tf.cast(tf.bitcast(x, tf.uint16), tf.uint32)
    return tf.bitcast(tf.bitwise.left_shift(bits, tf.constant(16, tf.uint32)), tf.float32)


def narrow(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Casts float32 `x` to `dtype`; for bfloat16, by rounding the bits to nearest even, with the same result."""
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
    """Partial sums over positions of function(*activations), inside compiled functions: `(B, ..., C)` to `(rows, C)`.

    If the function returns a tuple of float32 tensors, their sums are stacked: `(number, rows, C)`.

    On a CPU, XLA's own reductions are up to ten times slower than an elementwise pass over the same data. The positions
    are therefore split into eighths, which are added element by element in one pass that writes no tensor of the
    activations' size. `total` adds up the remaining rows. With `add=tf.maximum` the result is a maximum.
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


def _sum_gradient(op: tf.Operation, *dy: tf.Tensor) -> list[tf.Tensor | None]:
    """The gradient of `_added_up`, for second derivatives."""
    adders = [_adder(number).function_def.signature.name for number in range(1, len(dy) + 1)]
    if op.get_attr("reducer").name not in adders:
        raise LookupError(f"{op.type} has a gradient for sums only: received the reducer {op.get_attr('reducer').name}")
    return [*(tf.broadcast_to(each, tf.shape(op.inputs[0])) for each in dy), *[None] * len(dy)]


# TensorFlow registers none; if a later version does, it is the same.
with contextlib.suppress(KeyError):
    tf.RegisterGradient("XlaVariadicReduceV2")(_sum_gradient)


@functools.cache
def _adder(number: int) -> "tf.types.experimental.ConcreteFunction":
    """The reducer for XLA: the sums of `number` pairs of scalars."""
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
