"""Loads models from untrusted files without running code in them.

>>> model = kbnn.loading.load_model("model.keras")                  # only classes of Keras, Larq, kbnn and your own
>>> model = kbnn.loading.load_model("model.keras", trust=True)      # anything that the file names

A Keras file names Python objects, which Keras imports and calls while it loads the file. The configuration is therefore
checked against a list of allowed names before Keras sees it. Your own classes are allowed once they are registered with
`tf.keras.utils.register_keras_serializable`.
"""

import collections
import contextlib
import contextvars
import functools
import inspect
import json
import math
import os
import zipfile
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeVar

from kbnn import files
from kbnn.errors import KbnnError, UsageError

if TYPE_CHECKING:
    import h5py
    import numpy as np
    import tensorflow as tf

# Default limit of the decoded size of a file; `max_bytes` changes it.
MAX_BYTES = 4_000_000_000
_MAX_CONFIG_BYTES = 64_000_000
# Allowance for variables that are not in the file, such as counters and state that is not saved.
_SLACK_BYTES = 64_000_000
_MAX_LAYERS = 20_000
# How often Keras may try each call of a layer on average.
_ATTEMPTS = 20
_SAVED_MODEL = "saved_model.pb"
_WEIGHTS = "model.weights.h5"
_ZIP_MEMBERS = ("config.json", "metadata.json", _WEIGHTS)

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | int | bool | None"
Variable = TypeVar("Variable")

_trusting = contextvars.ContextVar("kbnn_trusts_files", default=False)


class UntrustedModelError(KbnnError):
    """A file contains something that could run code when it is loaded."""

    parameter = "trust"


@contextlib.contextmanager
def trusting() -> Iterator[None]:
    """Loads files without the check within the block, as with `trust=True`."""
    token = _trusting.set(True)
    try:
        yield
    finally:
        _trusting.reset(token)


def load_model(
    path: str | os.PathLike[str], *, trust: bool | None = None, max_bytes: int = MAX_BYTES
) -> "tf.keras.Model":
    """Loads a model from a `.keras` file, an HDF5 file or a SavedModel that Keras wrote.

    Args:
        path: the file, or the folder of a SavedModel.
        trust: load anything that the file names, which may run any code. By default False, except within `trusting`.
        max_bytes: limit of the decoded size of the file's content.

    Raises:
        UsageError: there is no such file, or it has another suffix.
        UntrustedModelError: the file contains something that could run code.
        KbnnError: the file is damaged or too large, or names a class that is not registered.
    """
    file = Path(path)
    trust = _trusting.get() if trust is None else trust
    is_saved_model = (file / _SAVED_MODEL).is_file()
    if not is_saved_model and not (
        file.is_file() and (files.suffix(file) in (".keras", ".h5", ".hdf5") or _is_hdf5(file))
    ):
        raise UsageError(
            f"cannot load a model: received '{file}', give the folder of a run, a .keras or .h5 file, or a SavedModel"
        )
    declared = check(file, trust=trust, max_bytes=max_bytes)
    return _load(file, declared, trust)


def check(path: Path, *, trust: bool, max_bytes: int = MAX_BYTES) -> int:
    """Checks a file before Keras reads it, and returns the decoded size of its weights in bytes.

    Raises:
        UntrustedModelError, KbnnError: as for `load_model`.
    """
    if path.is_dir():
        from kbnn import saved_model

        return saved_model.check(path, trust=trust, max_bytes=max_bytes)
    is_zip, is_hdf5 = zipfile.is_zipfile(path), _is_hdf5(path)
    if is_zip and is_hdf5:
        raise UntrustedModelError(f"'{path}' is both a ZIP archive and an HDF5 file: save the model again")
    if is_zip:
        return _check_zip(path, trust, max_bytes)
    if not is_hdf5:
        raise KbnnError(f"'{path}' is not a readable Keras model: it is neither a .keras archive nor an HDF5 file")
    with open_hdf5(path, max_bytes=max_bytes) as file:
        if not trust:
            check_config(path, parse_json(path, _attribute(path, file, "model_config")))
        return stored_bytes(file)


def _load(path: Path, declared: int, trust: bool) -> "tf.keras.Model":
    import tensorflow as tf

    # A SavedModel restores its variables lazily, with its own functions.
    bounded = contextlib.nullcontext() if path.is_dir() else _bounded_variables(path, declared)
    named = path
    try:
        with bounded, _named_for_keras(path) as named:
            return tf.keras.models.load_model(
                named, compile=False, **({"safe_mode": not trust} if _is_v3(path) else {})
            )
    except KbnnError:
        raise
    except Exception as error:
        reason = " ".join(str(error).replace(str(named), str(path)).split())[:200] or type(error).__name__
        raise KbnnError(f"'{path}' is not a readable Keras model ({reason}): save it again with model.save") from error


def _is_v3(path: Path) -> bool:
    return files.suffix(path) == ".keras" and zipfile.is_zipfile(path)


@contextlib.contextmanager
def _named_for_keras(path: Path) -> Iterator[Path]:
    """Yields a file's path, or if its suffix is not in lower case, that of a link whose name Keras recognizes."""
    if path.suffix == files.suffix(path):
        yield path
        return
    with files.scratch() as folder:
        link = folder / f"model{files.suffix(path)}"
        link.symlink_to(path.absolute())
        yield link


@contextlib.contextmanager
def _bounded_variables(path: Path, declared: int) -> Iterator[None]:
    """Raises KbnnError before variables are allocated whose total size exceeds that of the weights in the file."""
    import tensorflow as tf

    limit = 2 * declared + _SLACK_BYTES
    total = 0

    def create(make: Callable[..., Variable], **arguments: object) -> Variable:
        nonlocal total
        shape = tf.TensorShape(arguments.get("shape"))
        if shape.is_fully_defined():
            total += (shape.num_elements() or 0) * tf.as_dtype(arguments.get("dtype") or tf.float32).size
        if total > limit:
            raise KbnnError(
                f"'{path}' describes a network of more than {limit:,} bytes, but holds {declared:,} bytes of weights: "
                f"the file is damaged, save it again"
            )
        return make(**arguments)

    with tf.variable_creator_scope(create):
        yield


def _check_zip(path: Path, trust: bool, max_bytes: int) -> int:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > max_bytes:
                raise _too_large(path, total, max_bytes)
            names = [member.filename for member in members]
            for member in members:
                if member.filename != _WEIGHTS and member.file_size > _MAX_CONFIG_BYTES:
                    raise _too_large(path, member.file_size, _MAX_CONFIG_BYTES)
            if not trust and set(names) - set(_ZIP_MEMBERS):
                other = sorted(set(names) - set(_ZIP_MEMBERS))[0]
                raise _untrusted(path, f"it contains '{other}' in addition to configuration and weights")
            if len(set(names)) < len(names) or not {"config.json", _WEIGHTS} <= set(names):
                raise KbnnError(
                    f"'{path}' is not a readable Keras model: it needs one config.json and one {_WEIGHTS}, received "
                    f"{', '.join(sorted(names)[:5]) or 'nothing'}"
                )
            if not trust and archive.getinfo(_WEIGHTS).compress_type != zipfile.ZIP_STORED:
                # HDF5 jumps within a file, and each jump back would decompress everything before it again.
                raise KbnnError(f"'{path}' has compressed weights, which Keras never writes: save the model again")
            if not trust:
                check_config(path, _without_compile_config(parse_json(path, archive.read("config.json"))))
            with archive.open(_WEIGHTS) as weights, open_hdf5(weights, path, max_bytes=max_bytes) as file:
                return stored_bytes(file)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise KbnnError(f"'{path}' is not a readable Keras model ({error}): save it again") from error


def _without_compile_config(config: Json) -> Json:
    # Models are loaded with compile=False, which ignores it.
    return (
        {key: value for key, value in config.items() if key != "compile_config"} if isinstance(config, dict) else config
    )


def parse_json(path: Path, text: bytes | str) -> Json:
    """Parses a configuration as plain JSON, without creating its objects.

    Raises:
        KbnnError: it is too large, too deeply nested, or not JSON.
    """
    if len(text) > _MAX_CONFIG_BYTES:
        raise _too_large(path, len(text), _MAX_CONFIG_BYTES)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KbnnError(f"'{path}' is not a readable Keras model: its configuration is damaged ({error})") from error


# --- NumPy archives -------------------------------------------------------------------------------------------------

# NumPy's kinds of types that arrays of numbers have.
NUMBERS = "biuf"


def read_arrays(path: Path, *, text: Container[str] = (), max_bytes: int = MAX_BYTES) -> dict[str, "np.ndarray"]:
    """Reads the arrays of an .npz file; their sizes and types are checked before they are read.

    Args:
        path: the file.
        text: names of arrays that hold text; all others hold numbers.
        max_bytes: limit of the arrays' size in memory.

    Raises:
        KbnnError: the arrays are larger than `max_bytes`.
        ValueError: the file is damaged, or holds other values.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
            if total > max_bytes:
                raise _too_large(path, total, max_bytes)
            names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
            return {name: _array(archive, f"{name}.npy", "U" if name in text else NUMBERS) for name in names}
    except (KbnnError, OSError):
        raise
    except Exception as error:
        # NumPy and zipfile raise various exceptions for damaged files.
        raise ValueError(str(error) or type(error).__name__) from error


def _array(archive: zipfile.ZipFile, name: str, kinds: str) -> "np.ndarray":
    from numpy.lib import format as npy

    size = archive.getinfo(name).file_size
    with archive.open(name) as file:
        # NumPy allocates what the header asks for before it reads the values.
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
        shape, _, dtype = read(file)
        if dtype.kind not in kinds or math.prod(shape) * dtype.itemsize > size:
            raise ValueError(f"'{name}' is an array {shape} of {dtype} in {size} bytes")
    with archive.open(name) as file:
        return npy.read_array(file, allow_pickle=False)


# --- HDF5 -----------------------------------------------------------------------------------------------------------


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


@contextlib.contextmanager
def open_hdf5(
    source: Path | IO[bytes], path: Path | None = None, *, max_bytes: int = MAX_BYTES
) -> Iterator["h5py.File"]:
    """Opens an HDF5 file for reading, and checks that it refers to no other file and that its arrays are not too large.

    Args:
        source: a path or a file object.
        path: the path for error messages; required for a file object.
        max_bytes: limit of the arrays' size in memory.

    Raises:
        UntrustedModelError: the file refers to other files.
        KbnnError: it is damaged, or its arrays are larger than `max_bytes`.
    """
    import h5py

    path = Path(str(source)) if path is None else path
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise _unreadable_hdf5(path, error) from error
    with file:
        total = 0
        try:
            for name, size in _datasets(file, path):
                total += size
                if total > max_bytes:
                    raise KbnnError(f"{_too_large(path, total, max_bytes)}; the array that exceeds it is '{name}'")
        except (OSError, RuntimeError, KeyError, ValueError, AttributeError) as error:
            raise _unreadable_hdf5(path, error) from error
        yield file


def _unreadable_hdf5(path: Path, error: Exception) -> KbnnError:
    return KbnnError(f"'{path}' is not a readable HDF5 file ({' '.join(str(error).split())[:200]}): save it again")


def _datasets(file: "h5py.File", path: Path) -> Iterator[tuple[str, int]]:
    """The name and size in bytes of each array. Links within the file are skipped, since their targets are included."""
    import h5py

    waiting: list[h5py.Group] = [file]
    seen = set()
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UntrustedModelError(f"'{path}' refers to another file ('{link.filename}'): save the model again")
            if not isinstance(link, h5py.HardLink):
                continue
            member = group[name]
            address = h5py.h5o.get_info(member.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(member, h5py.Group):
                waiting.append(member)
            elif isinstance(member, h5py.Dataset):
                if member.external or member.is_virtual:
                    raise UntrustedModelError(f"'{path}' keeps array '{name}' in another file: save the model again")
                yield str(member.name), int(member.nbytes)


def stored_bytes(file: "h5py.File") -> int:
    """The size in memory of all arrays of a file that was opened with `open_hdf5`."""
    return sum(size for _, size in _datasets(file, Path(file.filename)))


def _attribute(path: Path, file: "h5py.File", name: str) -> bytes | str:
    value = file.attrs.get(name)
    if not isinstance(value, bytes | str):
        raise KbnnError(
            f"'{path}' does not contain a model: its attribute '{name}' is missing; if it is a weight file, load it "
            f"into a network with kbnn.weights.load"
        )
    return value


# --- the configuration ----------------------------------------------------------------------------------------------

# Classes of Keras that contain code or graphs, call arbitrary methods, or read files.
_REFUSED_CLASSES = {
    "Lambda": "contains Python code",
    "TensorFlowOpLayer": "contains any TensorFlow operation",
    "ClassMethod": "calls a method by name",
    "InstanceMethod": "calls a method by name",
    "InstanceProperty": "reads a property by name",
    "StringLookup": "reads a file",
    "IntegerLookup": "reads a file",
    "TextVectorization": "reads a file",
    "DenseFeatures": "contains feature columns",
    "SequenceFeatures": "contains feature columns",
    "LinearModel": "is not a layer",
    "__lambda__": "contains Python code",
    "__typespec__": "names a type by its module",
    "CompositeTensor": "names a type",
}
# Plain values that Keras stores as dictionaries with a class name.
_VALUES = ("__tuple__", "__ellipsis__", "__bytes__", "__numpy__", "__tensor__", "TensorShape")
_OP_LAYERS = ("TFOpLambda", "SlicingOpLambda")
# The modules that Keras writes for its own functions.
_FUNCTION_MODULES = (
    "builtins",
    "keras.activations",
    "keras.losses",
    "keras.metrics",
    "keras.src.activations",
    "keras.src.losses",
    "keras.src.metrics.metrics",
)
# Namespaces of TensorFlow whose functions only compute.
_OP_NAMESPACES = ("math.", "nn.", "linalg.", "bitwise.", "signal.", "quantization.", "__operators__.")
_OPS = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "add",
        "add_n",
        "argmax",
        "argmin",
        "argsort",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "batch_to_space",
        "boolean_mask",
        "broadcast_dynamic_shape",
        "broadcast_static_shape",
        "broadcast_to",
        "cast",
        "clip_by_norm",
        "clip_by_value",
        "complex",
        "concat",
        "constant",
        "convert_to_tensor",
        "cos",
        "cosh",
        "cumsum",
        "depth_to_space",
        "divide",
        "dynamic_partition",
        "dynamic_stitch",
        "einsum",
        "ensure_shape",
        "equal",
        "erf",
        "exp",
        "expand_dims",
        "expand_dims_v2",
        "eye",
        "fill",
        "floor",
        "floordiv",
        "floormod",
        "gather",
        "gather_nd",
        "greater",
        "greater_equal",
        "identity",
        "image.adjust_brightness",
        "image.adjust_contrast",
        "image.central_crop",
        "image.crop_and_resize",
        "image.crop_to_bounding_box",
        "image.extract_patches",
        "image.flip_left_right",
        "image.flip_up_down",
        "image.grayscale_to_rgb",
        "image.pad_to_bounding_box",
        "image.per_image_standardization",
        "image.resize",
        "image.resize_with_crop_or_pad",
        "image.resize_with_pad",
        "image.rgb_to_grayscale",
        "image.rot90",
        "image.transpose",
        "less",
        "less_equal",
        "linspace",
        "logical_and",
        "logical_not",
        "logical_or",
        "matmul",
        "maximum",
        "meshgrid",
        "minimum",
        "multiply",
        "negative",
        "norm",
        "not_equal",
        "one_hot",
        "ones",
        "ones_like",
        "pad",
        "parallel_stack",
        "pow",
        "range",
        "rank",
        "realdiv",
        "recip",
        "reduce_all",
        "reduce_any",
        "reduce_logsumexp",
        "reduce_max",
        "reduce_mean",
        "reduce_min",
        "reduce_prod",
        "reduce_sum",
        "repeat",
        "reshape",
        "reverse",
        "roll",
        "round",
        "rsqrt",
        "saturate_cast",
        "scalar_mul",
        "scatter_nd",
        "searchsorted",
        "sequence_mask",
        "shape",
        "shape_n",
        "sigmoid",
        "sign",
        "sin",
        "sinh",
        "size",
        "slice",
        "sort",
        "space_to_batch",
        "space_to_batch_nd",
        "space_to_depth",
        "split",
        "split_v",
        "sqrt",
        "square",
        "squeeze",
        "stack",
        "stop_gradient",
        "strided_slice",
        "subtract",
        "tan",
        "tanh",
        "tensordot",
        "tile",
        "transpose",
        "truediv",
        "truncatediv",
        "truncatemod",
        "unique",
        "unstack",
        "where",
        "where_v2",
        "zeros",
        "zeros_like",
    ]
)


def check_config(path: Path, config: Json) -> None:
    """Checks that a configuration contains only objects that may be loaded.

    Every dictionary that Keras could turn into an object is checked, at any depth.

    Raises:
        UntrustedModelError: it contains another object; the message names its layer.
    """
    waiting: list[tuple[Json, str]] = [(config, "")]
    while waiting:
        value, layer = waiting.pop()
        if isinstance(value, dict):
            layer = _layer_name(value) or layer
            reason = _refusal(value)
            if reason:
                raise _untrusted(path, f"layer '{layer}' {reason}" if layer else f"it {reason}")
            _check_order(path, value)
            waiting.extend((each, layer) for each in value.values())
        elif isinstance(value, list):
            waiting.extend((each, layer) for each in value)
        elif value == "_COMPOSITE_TYPE":
            raise _untrusted(path, f"layer '{layer}' has a constant of a composite type")


def _check_order(path: Path, config: dict[str, Json]) -> None:
    """Raises KbnnError if the layers of a functional model depend on each other in a cycle: Keras would not finish."""
    layers = config.get("layers")
    if not isinstance(layers, list) or "input_layers" not in config:
        return
    if len(layers) > _MAX_LAYERS:
        raise KbnnError(f"'{path}' has {len(layers):,} layers, the limit is {_MAX_LAYERS:,}: split the model")
    known = {str(each["name"]): each for each in layers if isinstance(each, dict) and isinstance(each.get("name"), str)}
    # Keras tries all calls over and over. It writes layers almost in order, so that a few attempts suffice.
    attempts = _ATTEMPTS * (1_000 + sum(len(_inbound_nodes(each)) for each in known.values()))
    # A model that is used as a layer has been called once before.
    calls = {name: int(_is_model(each.get("config"))) for name, each in known.items()}
    inputs = {name for name, each in known.items() if each.get("class_name") == "InputLayer"}
    waiting = {
        name: collections.deque([*_references(node, known)] for node in _inbound_nodes(each))
        for name, each in known.items()
    }
    moved = True
    while moved:
        moved = False
        waiting = {name: nodes for name, nodes in waiting.items() if nodes}
        attempts -= len(waiting)
        if attempts < 0:
            raise KbnnError(f"'{path}' is damaged: its layers are not in order; save the model again")
        for name, nodes in waiting.items():
            while nodes and all(source in inputs or place < calls[source] for source, place in nodes[0]):
                nodes.popleft()
                calls[name] += 1
                moved = True
    stuck = list(waiting)
    if stuck:
        raise KbnnError(f"'{path}' is damaged: layer '{stuck[0]}' depends on its own output; save the model again")


def _is_model(config: Json) -> bool:
    return isinstance(config, dict) and "layers" in config


def _inbound_nodes(layer: dict[str, Json]) -> list[Json]:
    nodes = layer.get("inbound_nodes")
    return list(nodes) if isinstance(nodes, list) else []


def _references(value: Json, known: Container[str]) -> Iterator[tuple[str, int]]:
    """The layers whose outputs a call takes, and which of their calls: `[layer, call, output, ...]` at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and value[0] in known and isinstance(value[1], int):
                yield value[0], value[1]
            waiting.extend(value)


def _layer_name(value: dict[str, Json]) -> str | None:
    inner = value.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def _refusal(value: dict[str, Json]) -> str | None:
    """Why Keras must not turn a dictionary into an object; None if it may, or if it does not describe an object."""
    if "class_name" not in value:
        return None
    name, module = value["class_name"], value.get("module")
    # As in Keras: without an entry, the class's name is the registered one.
    registered = value.get("registered_name", name)
    if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        return "has a description that Keras would not write"
    if name in _REFUSED_CLASSES:
        return f"is or has a {name}, which {_REFUSED_CLASSES[name]}"
    if name in _VALUES:
        return None
    if name == "TypeSpec":
        kind = value.get("type_spec")
        return None if kind == "tf.TensorSpec" else f"has the type {kind!r}"
    if name == "function":
        called = value.get("config")
        return None if _is_known_function(called, module, registered) else f"calls {_full(module, called)}"
    if name in _OP_LAYERS and (module is None or _keras_module(module) == "keras.src.layers.core.tf_op_layer"):
        return _op_refusal(value.get("config"))
    return None if _is_known_class(name, module, registered) else f"is or has a {_full(module, name)}"


def is_unknown_class(name: object) -> bool:
    """Whether Keras's older formats, which look classes up by name, cannot find a class of that name."""
    return (
        isinstance(name, str) and name not in {*_REFUSED_CLASSES, *_OP_LAYERS} and not _is_known_class(name, None, None)
    )


def _full(module: str | None, name: object) -> str:
    return f"'{module}.{name}'" if module else f"'{name}'"


def _op_refusal(config: object) -> str | None:
    function = config.get("function") if isinstance(config, dict) else None
    if not isinstance(function, str):
        return "calls an operation that has no name"
    name = function.removeprefix("compat.v1.")
    if name in _OPS or name.startswith(_OP_NAMESPACES):
        return None
    return f"calls tf.{function}, which is not an arithmetic or shape operation"


def _is_known_class(name: str, module: str | None, registered: str | None) -> bool:
    """Whether Keras finds an allowed class, in every format.

    The newest format looks up the registered name, then the class's name in the module, which it imports, and then the
    registered name in the module. Older formats look up the class's name only.
    """
    if registered in _registered():
        return registered == name or getattr(_registered()[registered], "__name__", None) == name
    if registered not in (None, name):
        return False
    if module is None:
        return name in _registered() or name in {each for _, each in _keras_classes()}
    return (_keras_module(module), name) in _keras_classes()


def _is_known_function(name: object, module: str | None, registered: str | None) -> bool:
    """Whether Keras finds an allowed function; it looks up the name first, then both names in the module."""
    if not isinstance(name, str):
        return False
    # Some versions of Keras write "function", the class's name in the configuration.
    if registered not in (None, name, "function"):
        return False
    if name in _registered():
        return True
    return (module is None or _keras_module(module) in _FUNCTION_MODULES) and name in _keras_functions()


def _registered() -> dict[str, object]:
    """The objects that are registered with Keras in this process: those of Larq, kbnn and the user."""
    import tensorflow as tf

    # Resolves the lazily loaded Keras, with which Larq's and kbnn's classes register.
    _ = tf.keras.layers
    import larq  # noqa: F401

    return tf.keras.utils.get_custom_objects()


def _keras_module(module: str) -> str:
    """Keras 2 is installed as `tf_keras` and writes either name."""
    return module.removeprefix("tf_") if module.startswith("tf_keras") else module


@functools.cache
def _keras_classes() -> frozenset[tuple[str, str]]:
    """The module and name of every public class of Keras that a file may contain."""
    import tensorflow as tf

    keras = tf.keras
    spaces = {
        "keras.layers": keras.layers,
        "keras.layers.experimental": keras.layers.experimental,
        "keras.layers.experimental.preprocessing": keras.layers.experimental.preprocessing,
        "keras.initializers": keras.initializers,
        "keras.regularizers": keras.regularizers,
        "keras.constraints": keras.constraints,
        "keras.losses": keras.losses,
        "keras.metrics": keras.metrics,
        "keras.optimizers": keras.optimizers,
        "keras.optimizers.legacy": keras.optimizers.legacy,
        "keras.optimizers.schedules": keras.optimizers.schedules,
        "keras.mixed_precision": keras.mixed_precision,
    }
    found = {
        (module, name)
        for module, space in spaces.items()
        for name in dir(space)
        if inspect.isclass(getattr(space, name)) and name not in _REFUSED_CLASSES
    }
    models = {(module, name) for module in ("keras", "keras.models") for name in ("Model", "Sequential", "Functional")}
    internal = {
        ("keras.src.engine.functional", "Functional"),
        ("keras.src.engine.sequential", "Sequential"),
        ("keras.src.engine.training", "Model"),
    }
    return frozenset(found | models | internal)


@functools.cache
def _keras_functions() -> frozenset[str]:
    """The names of Keras's activations, losses and metrics that are functions."""
    import tensorflow as tf

    spaces = (tf.keras.activations, tf.keras.losses, tf.keras.metrics)
    names = {name for space in spaces for name in dir(space) if inspect.isfunction(getattr(space, name))}
    return frozenset(names - {"get", "serialize", "deserialize"})


def _untrusted(path: Path, what: str) -> UntrustedModelError:
    return UntrustedModelError(
        f"'{path}' could run code when it is loaded: {what}; register your own classes with "
        f"tf.keras.utils.register_keras_serializable before loading, or pass trust=True if you trust its author"
    )


def _too_large(path: Path, received: int, limit: int) -> KbnnError:
    return KbnnError(f"'{path}' is too large: received {received:,} bytes of content, the limit is {limit:,}")
