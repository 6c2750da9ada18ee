"""A recipe's network, from whichever installed package registers its name."""

import contextlib
import importlib.metadata
from collections.abc import Iterator

import tensorflow as tf

from kbnn.datasets import Dataset
from kbnn.training.recipe import ModelSettings, Recipe

# A package that is named there has `names()` and `build(name, method, input_shape, classes, **options)`.
GROUP = "kbnn.architectures"


def network(recipe: Recipe, data: Dataset) -> tf.keras.Model:
    """The recipe's network for a data set, under its mixed-precision policy.

    Raises:
        UsageError: an unknown architecture, method or option.
    """
    with _policy(recipe.policy), _random_state_in_variables():
        return build(recipe.model, data)


def build(settings: ModelSettings, data: Dataset) -> tf.keras.Model:
    """A network for the data's shape and classes."""
    package = None
    for entry in importlib.metadata.entry_points(group=GROUP):
        package = entry.load()
        if settings.name in package.names():
            break
    if package is None:
        raise RuntimeError(f"no installed package registers '{GROUP}'")
    return package.build(
        settings.name, settings.method, input_shape=data.input_shape, classes=len(data.classes), **settings.options
    )


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


@contextlib.contextmanager
def _random_state_in_variables() -> Iterator[None]:
    """Dropout keeps its random state in a variable, which a checkpoint can hold, not in a kernel, which none can."""
    random = tf.keras.backend.experimental
    if random.is_tf_random_generator_enabled():
        yield
        return
    random.enable_tf_random_generator()
    try:
        yield
    finally:
        random.disable_tf_random_generator()


def random_states(model: tf.keras.Model) -> list[tf.random.Generator]:
    """The random generators of a model's layers, which its checkpoints leave out."""
    holders = (getattr(layer, "_random_generator", None) for layer in model.submodules)
    generators = (getattr(holder, "_generator", None) for holder in holders)
    return [generator for generator in generators if generator is not None]
