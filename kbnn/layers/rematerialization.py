"""Rematerialization: the convolution recomputes cheap inputs instead of reading them from memory.

On a CPU, writing a feature map and reading it back takes as long as a convolution with few channels, while one more
operation in a pass over memory is almost free. A layer in front of a sign, such as a channel shift or the batch median,
therefore attaches to its output the expression that computes it (as Keras attaches a mask), and the convolution
evaluates that expression in its own passes. Gradients flow to the output and through its layer as usual. In a graph,
the output itself is never computed, because nothing reads it.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

_ATTRIBUTE = "_kbnn_expression"


class Expression(NamedTuple):
    """The tensor function(*tensors): elementwise in the first of `tensors`, and compilable by XLA."""

    function: Callable[..., tf.Tensor]
    tensors: tuple[tf.Tensor, ...]


def attach(y: tf.Tensor, function: Callable[..., tf.Tensor], *tensors: tf.Tensor) -> tf.Tensor:
    """Attaches to `y` the expression function(*tensors) that computes it, and returns `y`."""
    setattr(y, _ATTRIBUTE, Expression(function, tensors))
    return y


def expression(y: tf.Tensor) -> Expression:
    """The expression attached to `y`; `y` itself if there is none."""
    return getattr(y, _ATTRIBUTE, Expression(_itself, (y,)))


def _itself(y: tf.Tensor) -> tf.Tensor:
    return y
