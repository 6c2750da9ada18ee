"""Selects tf-keras as `tf.keras`, since Larq is a Keras 2 library, and registers kbnn's classes with it."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

import wrapt

from kbnn.native_output import held_stderr

if TYPE_CHECKING:
    import tensorflow as tf

# The configuration of a Keras object, as `get_config` returns it.
Config = dict[str, object]

VARIABLE = "TF_USE_LEGACY_KERAS"
_TRUE = ("1", "true", "True")


def select_legacy_keras() -> None:
    """Sets `TF_USE_LEGACY_KERAS=1`, which has to happen before `tf.keras` is resolved.

    Raises:
        ImportError: `tf.keras` is Keras 3 already, or the variable is set to something else.
    """
    received = os.environ.get(VARIABLE)
    if received is not None and received not in _TRUE:
        raise ImportError(f"kbnn needs tf.keras 2: received {VARIABLE}={received!r}, set {VARIABLE}=1 or unset it")
    if _is_keras_3(sys.modules.get("tensorflow")):
        raise ImportError(
            f"kbnn needs tf.keras 2, but TensorFlow was imported before kbnn and tf.keras is Keras 3 already: "
            f"set {VARIABLE}=1 in the environment, or import kbnn before tensorflow"
        )
    os.environ[VARIABLE] = "1"
    if "tensorflow" in sys.modules:
        _point_submodules_to_legacy_keras(sys.modules["tensorflow"])


def _point_submodules_to_legacy_keras(tensorflow: ModuleType) -> None:
    """Makes `import tensorflow.keras.optimizers`, as in Larq, find the same module as `tf.keras.optimizers`.

    TensorFlow reads the variable only while it is imported. If it was not set then, `tensorflow.keras` refers to the
    folder of Keras 3.
    """
    legacy = importlib.util.find_spec("tf_keras")
    if legacy is None or not legacy.submodule_search_locations:
        raise ImportError("kbnn needs tf-keras, which is not installed: pip install tf-keras")
    tensorflow.__path__.insert(0, str(Path(legacy.submodule_search_locations[0], "api", "_v2")))


def _is_keras_3(tensorflow: ModuleType | None) -> bool:
    """Whether an imported TensorFlow has resolved its lazily loaded `tf.keras` to Keras 3."""
    keras = vars(tensorflow).get("keras") if tensorflow else None
    if keras is None:
        return False
    if type(keras) is ModuleType:
        return not keras.Model.__module__.startswith("tf_keras")
    return vars(keras).get("_tfll_keras_version") == "keras_3"


def serializable(kind: type) -> type:
    """Registers a class with Keras under its package's name, and under its plain name, by which `.h5` files know it.

    Not for layers: their plain names may clash with Keras's own, and `.h5` files store the package's name anyway.
    Registering a class of the same name again, as when a notebook cell is rerun, replaces it.
    """
    import tensorflow as tf

    objects = tf.keras.utils.get_custom_objects()
    if kind not in objects.values():
        package = kind.__module__.partition(".")[0]
        replaced = objects.pop(f"{package}>{kind.__name__}", None)
        tf.keras.utils.register_keras_serializable(package=package)(kind)
        if objects.get(kind.__name__) in (None, replaced):
            objects[kind.__name__] = kind
    return kind


def deserialize(config: Mapping[str, object]) -> "tf.keras.layers.Layer":
    """Creates a quantizer or layer from its configuration within another object's configuration.

    The registered name is looked up first: for `.h5` files, Keras and Larq search only their own classes for the plain
    name.
    """
    import tensorflow as tf

    registered = tf.keras.utils.get_custom_objects().get(config.get("registered_name"))
    if registered is not None and hasattr(registered, "from_config"):
        return registered.from_config(config["config"])
    return tf.keras.utils.deserialize_keras_object(config)


def register_with_keras(*modules: str) -> None:
    """Imports `modules` as soon as tf-keras is imported, so that saved models load after `import kbnn` alone."""

    @wrapt.when_imported("tf_keras")
    def _register(_: ModuleType) -> None:
        for module in modules:
            importlib.import_module(module)

    @wrapt.when_imported("tf_keras.src.activations")
    def _wrap(activations: ModuleType) -> None:
        wrapt.wrap_function_wrapper(activations, "deserialize", _activation)

    @wrapt.when_imported("larq.context")
    def _restore(context: ModuleType) -> None:
        wrapt.wrap_function_wrapper(context, "quantized_scope", _restoring)

    # TensorFlow would import tf_keras while it resolves `tf.keras`, which our modules need resolved.
    if "tensorflow" in sys.modules:
        importlib.import_module("tf_keras")


def quiet_in_notebooks() -> None:
    """Suppresses what TensorFlow's native libraries print on import, which a notebook would show in red."""
    if "ipykernel" not in sys.modules or "tensorflow" in sys.modules:
        return

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(
            self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> importlib.machinery.ModuleSpec | None:
            if name != "tensorflow":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def held(module: ModuleType) -> None:
                    with held_stderr(show_on_error=True):
                        execute(module)
                        # Loads Keras now, and with it our layers, because their messages would appear later.
                        _ = module.keras.layers

                spec.loader.exec_module = held  # type: ignore[method-assign]
            return spec

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.meta_path.insert(0, Finder())


@contextlib.contextmanager
def _restoring(
    scope: Callable[..., contextlib.AbstractContextManager[None]],
    _: object,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> Iterator[None]:
    """Larq's `quantized_scope`, but restored after an error, too.

    Larq enters it for each layer call. Otherwise, a single wrong shape would leave kernels binarized for the rest of
    the process, and therefore in every model saved afterwards.
    """
    larq_scope = scope(*args, **kwargs)
    larq_scope.__enter__()
    try:
        yield
    finally:
        larq_scope.__exit__(None, None, None)


def _activation(
    deserialize: Callable[..., object], _: object, args: tuple[object, ...], kwargs: dict[str, object]
) -> object:
    """An activation by name or configuration, with corrections for recent versions of Keras.

    For the name of a registered class, such as Larq's quantizers, Keras returns the class, which
    `Activation("ste_sign")` would call on its input; earlier versions returned an instance. In `.h5` files, Keras does
    not find registered functions.
    """
    config = args[0] if args else None
    if isinstance(config, dict) and config.get("class_name") == "function":
        registered = _registered(config.get("config"))
        if registered is not None:
            return registered
    found = deserialize(*args, **kwargs)
    return found() if isinstance(found, type) else found


def _registered(name: object) -> object:
    import tensorflow as tf

    return tf.keras.utils.get_custom_objects().get(name) if isinstance(name, str) else None


def forget_scratch_gradients() -> None:
    """Frees the graphs in which Keras infers the shapes of a functional model's layers.

    TensorFlow keeps every custom gradient that is traced into a graph, and with it the graph. Nothing differentiates
    Keras's scratch graphs, so dropping their gradients is safe. It frees over a megabyte for each small network.
    """
    from tensorflow.python.framework import ops

    registry = ops.gradient_registry._registry
    for name, entry in list(registry.items()):
        if name.startswith("CustomGradient-") and any(is_scratch(graph) for graph in _graphs_in(entry["type"])):
            registry.pop(name, None)


def is_scratch(graph: object) -> bool:
    """Whether Keras only infers the output shape of a layer of a functional model in this graph."""
    return str(getattr(graph, "name", "")).endswith("_scratch_graph")


def _graphs_in(value: object, depth: int = 0) -> Iterator[object]:
    """The graphs of the tensors in a function's closure or in a list."""
    if depth > 4:
        return
    if isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # the cell is empty
                yield from _graphs_in(cell.cell_contents, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _graphs_in(item, depth + 1)
    else:
        yield getattr(value, "graph", None)
