"""Rematerialization: cheap inputs of a convolution are recomputed in it instead of being written and read.

On a CPU, writing a feature map and reading it back takes as long as a convolution of few channels, while one more
operation in a pass over memory takes almost no time. So a layer in front of a sign, such as a channel shift or the
batch median, attaches to its output the expression that computes it, as Keras attaches a mask, and the convolution
evaluates that expression in its own passes. Gradients flow to the output and through its layer as usual. In a graph
nothing reads the output's values any more, so they are not computed.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

_ATTRIBUTE = "_kbnn_expression"


class Expression(NamedTuple):
    """The tensor function(*tensors), computed element by element of the first of them; XLA can compile `function`."""

    function: Callable[..., tf.Tensor]
    tensors: tuple[tf.Tensor, ...]


def attach(y: tf.Tensor, function: Callable[..., tf.Tensor], *tensors: tf.Tensor) -> tf.Tensor:
    """`y`, with the expression function(*tensors), which computes it, attached."""
    setattr(y, _ATTRIBUTE, Expression(function, tensors))
    return y


def expression(y: tf.Tensor) -> Expression:
    """The expression attached to `y`; `y` itself if there is none."""
    return getattr(y, _ATTRIBUTE, Expression(_itself, (y,)))


def _itself(y: tf.Tensor) -> tf.Tensor:
    return y
