"""Saves, loads and transfers weights. Weight files are named by their sha256 and checked layer by layer on loading.

>>> path = kbnn.weights.save(model, "weights")          # weights/bireal18-<sha256>.h5
>>> path = kbnn.weights.pack(model, "weights")          # weights/bireal18-<sha256>.npz, about a quarter of the size
>>> kbnn.weights.load(model, path)                      # the same network with the same method
>>> left = kbnn.weights.transfer(float_twin, model)     # by name, from a network with another method
>>> kbnn.weights.start(model, "cifar10")                # from weights that ship, a run, or a file
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import larq as lq
import numpy as np
import tensorflow as tf

from kbnn import files, pretrained, structure
from kbnn.errors import KbnnError, UsageError
from kbnn.layers.binarized import Binarized
from kbnn.loading import NUMBERS, load_model, open_hdf5, read_arrays

# The settings of a layer that depend on the method.
_SETTINGS = ("input_quantizer", "kernel_quantizer", "scale")
_ATTRIBUTE = "kbnn"
# Integer types of packed latent weights, smallest first, with their largest magnitudes.
_PACKED = {"int8": 127, "int16": 32767}
# How often weights whose binary value has changed are moved by one level.
_ROUNDS = 16
_HDF5, _NUMPY = ".h5", ".npz"


@dataclass(frozen=True)
class Source:
    """Arrays by `layer/weight`, and each layer's settings that depend on the method."""

    what: str
    arrays: Mapping[str, np.ndarray]
    settings: Mapping[str, dict[str, str]]


def save(model: tf.keras.Model, folder: str | os.PathLike[str]) -> Path:
    """Writes `folder/NAME-<sha256>.h5` in Keras's weight format and returns the path.

    Raises:
        KbnnError: the folder cannot be written.
    """
    with files.scratch() as temporary:
        written = temporary / "weights.h5"
        model.save_weights(written)
        with h5py.File(written, "a") as file:
            file.attrs[_ATTRIBUTE] = json.dumps({layer.name: _settings(layer) for layer in _weighted(model)})
        data = written.read_bytes()
    return _write(model, folder, data, _HDF5)


def pack(model: tf.keras.Model, folder: str | os.PathLike[str]) -> Path:
    """Writes `folder/NAME-<sha256>.npz`, with the latent kernels of 1-bit layers in 8 bits, and returns its path.

    Binarization only compares a latent kernel w with zero or with its filter's mean, and some methods average it. It
    is stored as integers q in int8 and a float32 scale s per filter: w ≈ s·q, where s keeps the mean of |w|. Weights
    whose binary value changes by rounding are moved back by one level, so all binary values are preserved. The weights
    can be trained further. A kernel that needs more precision is stored in int16 or else in float32, as are all other
    weights.

    Raises:
        KbnnError: the folder cannot be written.
    """
    content = io.BytesIO()
    settings = json.dumps({layer.name: _settings(layer) for layer in _weighted(model)})
    np.savez_compressed(content, **{_ATTRIBUTE: np.array(settings)}, **_packed(model))
    return _write(model, folder, content.getvalue(), _NUMPY)


def _write(model: tf.keras.Model, folder: str | os.PathLike[str], data: bytes, ending: str) -> Path:
    # Files of strangers give models any name, such as a path.
    path = Path(folder) / f"{files.component(model.name)}-{hashlib.sha256(data).hexdigest()}{ending}"
    files.write(path, data)
    return path


def _packed(model: tf.keras.Model) -> dict[str, np.ndarray]:
    names = {id(structure.latent(weight)): name for name, weight in _weights(model).items()}
    arrays = {name: weight.numpy() for name, weight in _weights(model).items()}
    for layer in structure.binary_layers(model):
        for kernel, quantizer in structure.binary_kernels(layer):
            name = names.get(id(kernel))
            if name is not None:
                arrays |= _packed_kernel(name, arrays.pop(name), quantizer)
    return arrays


def _packed_kernel(name: str, kernel: np.ndarray, quantizer: structure.Quantizer) -> dict[str, np.ndarray]:
    """The kernel in the smallest type that keeps its binary values."""
    wanted = _signs(kernel, quantizer)
    axes = tuple(range(kernel.ndim - 1))
    peak, mean = np.abs(kernel).max(axes), np.abs(kernel).mean(axes)
    for kind, largest in _PACKED.items():
        q = np.round(kernel / np.where(peak > 0, peak, 1.0) * largest)
        for _ in range(_ROUNDS):
            scale = (mean / np.maximum(np.abs(q).mean(axes), 1 / largest)).astype(np.float32)
            wrong = _signs((q * scale).astype(np.float32), quantizer) != wanted
            if not wrong.any():
                return {f"{name}.{kind}": q.astype(kind), f"{name}.scale": scale}
            q = np.clip(q + np.where(wanted, 1, -1) * wrong, -largest, largest)
    return {name: kernel}


def _signs(kernel: np.ndarray, quantizer: structure.Quantizer) -> np.ndarray:
    return structure.signs(structure.quantize(quantizer, tf.constant(kernel)).numpy(), quantizer)


def start(model: tf.keras.Model, source: str | os.PathLike[str] | tf.keras.Model) -> None:
    """Initializes a network from trained weights; a classifier for other classes keeps its own initialization.

    Args:
        model: the network to initialize. Its method may differ from that of the weights.
        source: the data set or the name of weights that ship for this network (`kbnn models --pretrained`), or the
            folder of a run, a model in a `.keras` or `.h5` file or a SavedModel, or a weight file; or a model.

    Raises:
        UsageError: no such weights, or weights of another network.
        KbnnError: the file is damaged.
    """
    known = _of_model(source) if isinstance(source, tf.keras.Model) else _known(source, model.name)
    last = model.layers[-1].name
    names = [name for name in _weights(model) if name.rpartition("/")[0] == last]
    weights = _weights(model)
    fits = all(name in known.arrays and known.arrays[name].shape == tuple(weights[name].shape) for name in names)
    _transfer(known, model, () if fits else (last,))


def _known(source: str | os.PathLike[str], network: str) -> Source:
    entry = pretrained.find(network, os.fspath(source))
    if entry:
        return replace(_read(entry.path), what=f"weights '{entry.name}'")
    path = Path(source)
    if not path.exists():
        raise pretrained.no_such(network, os.fspath(source))
    found = load_source(path)
    return _of_model(found) if isinstance(found, tf.keras.Model) else _read(found)


def load_source(source: str | os.PathLike[str]) -> tf.keras.Model | Path:
    """The model in a run's folder, a `.keras` or `.h5` file or a SavedModel; any other path is returned unchanged.

    Raises:
        UsageError: a `.tflite` file, which holds no latent weights.
        KbnnError: the run has no model yet, or the file is damaged.
    """
    path = Path(source)
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        from kbnn.training.run import Run

        return Run.open(path).model()
    if files.suffix(path) == ".tflite":
        raise UsageError(f"'{path}' holds signs instead of weights to train: give the run or model it was made from")
    return load_model(path) if path.is_dir() or files.suffix(path) == ".keras" or _holds_model(path) else path


def _holds_model(path: Path) -> bool:
    """Whether an HDF5 file holds a whole model, and not weights alone."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return "model_config" in file.attrs


def load(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Loads weights into the network that they were saved from, or an identical one.

    Raises:
        UsageError: the weights are from a network with another shape, class count or method; the message names the
            first layer that differs.
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
    """Initializes a network with the weights of another one that has the same layers and any method.

    In staged training, for example, a binary network starts from its real-valued twin. Weights are matched by layer and
    name. Weights that only the target has keep their values, except for learned scales, which are initialized from the
    new kernels.

    Args:
        source: a model or a weight file.
        target: the network to initialize.
        skip: names of layers to leave unchanged, such as `("logits",)` for another number of classes.

    Returns:
        The names of the target's weights that the source does not have.

    Raises:
        UsageError: a kernel of the target is missing in the source, or a shape differs.
        KbnnError: as for `load`.
    """
    known = _of_model(source) if isinstance(source, tf.keras.Model) else _read(Path(source))
    return _transfer(known, target, skip)


def _transfer(known: Source, target: tf.keras.Model, skip: Collection[str]) -> tuple[str, ...]:
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

    Inner scopes are dropped, because Keras numbers nested layers, such as quantizers, across the whole process.
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
    """Reads a weight file; if its name contains a sha256, the content must match it."""
    if not path.is_file():
        raise KbnnError(f"no weight file at '{path}': check the path")
    stated = re.search(r"-([0-9a-f]{64})\.(?:h5|npz)$", path.name, re.IGNORECASE)
    if stated and not files.is_intact(path, stated[1]):
        raise KbnnError(f"'{path}' is damaged: its sha256 differs from the one in its name; download or save it again")
    if files.suffix(path) == _NUMPY:
        return _unpacked(path)
    try:
        with open_hdf5(path) as file:
            return _content(str(path), file)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise KbnnError(f"'{path}' is not a weight file in Keras's HDF5 format ({error}): save it again") from error


def _unpacked(path: Path) -> Source:
    """Reads a file that `pack` wrote."""
    try:
        stored = read_arrays(path, text=(_ATTRIBUTE,))
        settings = _parsed(str(stored.pop(_ATTRIBUTE)))
        arrays = {}
        for name, array in stored.items():
            kernel, _, kind = name.rpartition(".")
            if kind in _PACKED:
                arrays[kernel] = array.astype(np.float32) * _scales(array, stored[f"{kernel}.scale"])
            elif kind != "scale":
                arrays[name] = array
    except (OSError, KeyError, ValueError) as error:
        raise KbnnError(f"'{path}' is not a file of packed weights ({error}): pack it again") from error
    return Source(f"file '{path}'", arrays, settings)


def _scales(kernel: np.ndarray, scales: np.ndarray) -> np.ndarray:
    if scales.shape != kernel.shape[-1:]:
        raise ValueError(f"scales {scales.shape} for a kernel {kernel.shape}")
    return scales


def _parsed(text: str) -> dict[str, dict[str, str]]:
    """The settings of layers.

    Raises:
        ValueError: the text is not such a record.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise ValueError("its settings are damaged")
    return found


def _content(what: str, file: h5py.File) -> Source:
    arrays = {}
    for layer in map(_text, file.attrs["layer_names"]):
        variables = [_text(variable) for variable in file[layer].attrs["weight_names"]]
        for name, variable in zip(_names(layer, variables), variables, strict=True):
            arrays[name] = np.asarray(file[layer][variable])
            if arrays[name].dtype.kind not in NUMBERS:
                raise ValueError(f"'{name}' has values of type {arrays[name].dtype}")
    return Source(f"file '{what}'", arrays, _parsed(_text(file.attrs.get(_ATTRIBUTE, "{}"))))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_shape(name: str, weight: tf.Variable, source: Source) -> None:
    received, wanted = source.arrays[name].shape, tuple(weight.shape)
    if received == wanted:
        return
    layer, _, leaf = name.rpartition("/")
    advice = "build it with the input_shape, width and options of the source"
    if len(wanted) == 4 and (*received[:-2], received[-1]) == (*wanted[:-2], wanted[-1]):
        channels = received[-2]
        advice = (
            f"it reads {channels} channels there and {wanted[-2]} here, give images with {channels} channels "
            f"(input_shape=(height, width, {channels}))"
        )
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
        f"layer '{layer.name}' has another method: {_words(known)} in {source.what}, {_words(_settings(layer))} in "
        f"the model; build it with the method of the source, or use kbnn.weights.transfer"
    )


def _words(settings: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "real-valued"


def _another_network(name: str, what: str, in_model: bool) -> UsageError:
    layer, _, leaf = name.rpartition("/")
    where = f"the model has it, {what} does not" if in_model else f"{what} has it, the model does not"
    return UsageError(
        f"layer '{layer}' differs in its {leaf}: {where}; build the network with the method and options that the "
        f"weights come from, or use kbnn.weights.transfer"
    )
