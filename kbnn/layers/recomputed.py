"""Maps that are computed again where they are read, because that is cheaper than reading them.

On a CPU, writing a map and reading it back takes as long as a convolution of few channels; one more operation in a
pass that is done anyway takes next to nothing. So what comes before a sign, a shift or the batch median, notes on its
output how that is made, as Keras notes a mask on it, and the convolution that takes the sign makes the output anew,
from what the note says, in its own passes. Gradients flow to the output, and on through its layer, as ever; but in a
graph nothing reads its values any more, and so they are not computed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

_ATTRIBUTE = "_kbnn_recipe"


class Recipe(NamedTuple):
    """A tensor as function(*tensors), element by element of the first of them; `function` is one that XLA compiles."""

    function: Callable[..., tf.Tensor]
    tensors: tuple[tf.Tensor, ...]


def note(y: tf.Tensor, function: Callable[..., tf.Tensor], *tensors: tf.Tensor) -> tf.Tensor:
    """`y`, with the note that it is function(*tensors)."""
    setattr(y, _ATTRIBUTE, Recipe(function, tensors))
    return y


def recipe(y: tf.Tensor) -> Recipe:
    """How `y` is made; of a tensor without a note, of itself."""
    return getattr(y, _ATTRIBUTE, Recipe(_itself, (y,)))


def _itself(y: Any) -> Any:
    return y
