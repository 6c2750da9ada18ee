"""Weight files: named by their sha256, checked layer by layer on loading, and passed on from stage to stage.

>>> path = kbnn.weights.save(model, "weights")          # weights/bireal18-<sha256>.h5
>>> kbnn.weights.load(model, path)                      # the same network with the same method
>>> left = kbnn.weights.transfer(float_twin, model)     # by name, from another method's network
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import larq as lq
import numpy as np
import tensorflow as tf

from kbnn import files, structure
from kbnn.errors import KbnnError, UsageError
from kbnn.layers.binarized import Binarized
from kbnn.loading import open_hdf5

# The settings of a layer that a method decides.
_SETTINGS = ("input_quantizer", "kernel_quantizer", "scale")
_ATTRIBUTE = "kbnn"


@dataclass(frozen=True)
class Source:
    """Arrays by `layer/weight`, and the method's settings of each layer."""

    what: str
    arrays: Mapping[str, np.ndarray]
    settings: Mapping[str, dict[str, str]]


def save(model: tf.keras.Model, folder: str | os.PathLike[str]) -> Path:
    """Writes `folder/NAME-<sha256>.h5` in Keras's own format for weights and returns its path.

    Raises:
        KbnnError: the folder cannot be written.
    """
    with files.scratch() as temporary:
        written = temporary / "weights.h5"
        model.save_weights(written)
        with h5py.File(written, "a") as file:
            file.attrs[_ATTRIBUTE] = json.dumps({layer.name: _settings(layer) for layer in _weighted(model)})
        data = written.read_bytes()
    path = Path(folder) / f"{model.name}-{hashlib.sha256(data).hexdigest()}.h5"
    files.write(path, data)
    return path


def load(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads weights into the network that they were saved from, or one that was built in the same way.

    Raises:
        UsageError: the file belongs to a network of another shape, class count or method; the message names the first
            layer that differs.
        KbnnError: the file is missing, damaged, or not a weight file.
    """
    source = _read(Path(path))
    weights = _weights(model)
    for name in [*weights, *source.arrays]:
        if name not in source.arrays or name not in weights:
            raise _another_network(name, source.what, in_model=name in weights)
        _check_shape(name, weights[name], source)
    for layer in _weighted(model):
        _check_settings(layer, source)
    for name, weight in weights.items():
        weight.assign(source.arrays[name])


def transfer(
    source: tf.keras.Model | str | os.PathLike[str], target: tf.keras.Model, skip: Collection[str] = ()
) -> tuple[str, ...]:
    """Initializes a network from another one with the same layers and any method.

    In staged training, a binary network starts from its real-valued twin. Weights are matched by the names of layers
    and weights. Weights that only the target has keep their values, except for learned scales, which are initialized
    from the new kernels.

    Args:
        source: a model or a weight file.
        target: the network to initialize.
        skip: layers to leave as they are, such as `("logits",)` for another number of classes.

    Returns:
        The names of the target's weights that the source does not have.

    Raises:
        UsageError: the source lacks a kernel of the target, or a shape differs.
        KbnnError: as `load`.
    """
    known = _of_model(source) if isinstance(source, tf.keras.Model) else _read(Path(source))
    weights = {name: weight for name, weight in _weights(target).items() if name.rpartition("/")[0] not in skip}
    for name, weight in weights.items():
        if name in known.arrays:
            _check_shape(name, weight, known)
        elif name.endswith("kernel"):
            raise _another_network(name, known.what, in_model=True)
    for name in weights.keys() & known.arrays.keys():
        weights[name].assign(known.arrays[name])
    left = {id(weights[name]) for name in weights.keys() - known.arrays.keys()}
    for layer in structure.layers_of(target, Binarized):
        if layer.alpha is not None and id(layer.alpha) in left:
            layer.restart_scale()
    return tuple(name for name in weights if name not in known.arrays)


def _weighted(model: tf.keras.Model) -> Iterator[tf.keras.layers.Layer]:
    return (layer for layer in model.layers if layer.weights)


def _weights(model: tf.keras.Model) -> dict[str, tf.Variable]:
    return {
        name: weight
        for layer in _weighted(model)
        for name, weight in zip(
            _names(layer.name, [weight.name for weight in layer.weights]), layer.weights, strict=True
        )
    }


def _names(layer: str, variables: list[str]) -> list[str]:
    """`layer/kernel` for a variable `.../kernel:0`; a second one of the same name is `layer/kernel_2`.

    Scopes in between are dropped, because Keras numbers nested layers, such as quantizers, across the whole process.
    """
    leaves = [re.sub(r":\d+$", "", variable).rpartition("/")[2] for variable in variables]
    counts = [leaves[:k].count(leaf) + 1 for k, leaf in enumerate(leaves)]
    return [f"{layer}/{leaf}" + f"_{count}" * (count > 1) for leaf, count in zip(leaves, counts, strict=True)]


def _settings(layer: tf.keras.layers.Layer) -> dict[str, str]:
    values = {name: getattr(layer, name, None) for name in _SETTINGS}
    return {
        name: type(value).__name__ if isinstance(value, lq.quantizers.Quantizer) else str(value)
        for name, value in values.items()
        if value is not None
    }


def _of_model(model: tf.keras.Model) -> Source:
    arrays = {name: weight.numpy() for name, weight in _weights(model).items()}
    return Source(f"model '{model.name}'", arrays, {layer.name: _settings(layer) for layer in _weighted(model)})


def _read(path: Path) -> Source:
    """The content of a weight file; if its name contains a sha256, the file must match it."""
    if not path.is_file():
        raise KbnnError(f"no file of weights at '{path}': check the path")
    stated = re.search(r"-([0-9a-f]{64})\.h5$", path.name)
    if stated and hashlib.sha256(path.read_bytes()).hexdigest() != stated[1]:
        raise KbnnError(f"'{path}' is damaged: its sha256 is not the one in its name, fetch or save it again")
    try:
        with open_hdf5(path) as file:
            return _content(str(path), file)
    except (OSError, KeyError, ValueError) as error:
        raise KbnnError(f"'{path}' is not a file of weights in Keras's HDF5 format ({error}): save it again") from error


def _content(what: str, file: h5py.File) -> Source:
    arrays = {}
    for layer in map(_text, file.attrs["layer_names"]):
        variables = [_text(variable) for variable in file[layer].attrs["weight_names"]]
        for name, variable in zip(_names(layer, variables), variables, strict=True):
            arrays[name] = np.asarray(file[layer][variable])
    return Source(f"file '{what}'", arrays, json.loads(file.attrs.get(_ATTRIBUTE, "{}")))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_shape(name: str, weight: tf.Variable, source: Source) -> None:
    received, wanted = source.arrays[name].shape, tuple(weight.shape)
    if received == wanted:
        return
    layer, _, leaf = name.rpartition("/")
    advice = "build it with the input_shape, width and options of the source"
    if received[:-1] == wanted[:-1] and layer == "logits":
        advice = f"build it with classes={received[-1]}, or transfer with skip=('{layer}',)"
    raise UsageError(
        f"layer '{layer}' differs: its {leaf} is {received} in {source.what} and {wanted} in the model; {advice}"
    )


def _check_settings(layer: tf.keras.layers.Layer, source: Source) -> None:
    known = source.settings.get(layer.name)
    if known is None or known == _settings(layer):
        return
    raise UsageError(
        f"layer '{layer.name}' is of another method: {_words(known)} in {source.what}, {_words(_settings(layer))} in "
        f"the model; build it with the method of the source, or start from it with kbnn.weights.transfer"
    )


def _words(settings: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "real-valued"


def _another_network(name: str, what: str, in_model: bool) -> UsageError:
    layer, _, leaf = name.rpartition("/")
    where = f"the model has it, {what} does not" if in_model else f"{what} has it, the model does not"
    return UsageError(
        f"layer '{layer}' differs in its {leaf}: {where}; build the network, method and options that the weights "
        f"come from, or start from them with kbnn.weights.transfer"
    )
