"""Keras's precision policy within a block, and float32 copies of networks that were trained in mixed precision."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from kbnn import structure
from kbnn.errors import KbnnError


@contextlib.contextmanager
def precision(policy: str | None) -> Iterator[None]:
    """Sets Keras's global precision policy within the block; None keeps the current one."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy or before)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def in_float32(model: tf.keras.Model) -> tf.keras.Model:
    """The model itself if all its layers compute in float32, otherwise a float32 copy with the same weights.

    Raises:
        KbnnError: a subclassed model computes in another type and cannot be rebuilt.
    """
    if not any(_is_other_float(layer.compute_dtype) for layer in structure.layers(model)):
        return model
    try:
        copy = tf.keras.models.clone_model(model, _float32_inputs(model), clone_function=_float32_layer)
    except (NotImplementedError, ValueError) as error:
        raise KbnnError(
            f"model '{model.name}' computes in {model.compute_dtype} and cannot be rebuilt ({error}): build it under "
            f"the policy float32 and load the weights"
        ) from error
    copy.set_weights(model.get_weights())
    return copy


def _float32_inputs(model: tf.keras.Model) -> list[tf.Tensor] | None:
    """Float32 inputs for the clone of a graph network, which would otherwise keep its inputs; None if not needed."""
    if not getattr(model, "_is_graph_network", False) or not any(_is_other_float(x.dtype.name) for x in model.inputs):
        return None
    names = model.input_names
    return [
        tf.keras.Input(batch_shape=x.shape, dtype="float32" if x.dtype.is_floating else x.dtype, name=name)
        for x, name in zip(model.inputs, names, strict=True)
    ]


def _float32_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    if isinstance(layer, tf.keras.Model):
        return in_float32(layer)
    return layer.__class__.from_config(_float32_config(layer.get_config()))


def _float32_config(config: object) -> object:
    """The configuration with every policy replaced, including those of a layer's quantizers."""
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" and not _is_integer(value) else _float32_config(value)
            for key, value in config.items()
        }
    if isinstance(config, tuple):
        return tuple(_float32_config(value) for value in config)
    if isinstance(config, list):
        return [_float32_config(value) for value in config]
    return config


def _is_other_float(dtype: str | None) -> bool:
    return dtype is not None and tf.as_dtype(dtype).is_floating and dtype != "float32"


def _is_integer(dtype: object) -> bool:
    """Whether a configured type is an integer type, as of an embedding's input; policies are not."""
    return isinstance(dtype, str) and not dtype.startswith("mixed_") and not tf.as_dtype(dtype).is_floating
