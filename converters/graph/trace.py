"""What Keras computes, operation by operation: the model's traced graph, whose names the file's tensors still bear."""

import contextlib
import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kbnn.converters.errors import ConversionError

_BATCH = 16


@dataclass(frozen=True)
class Call:
    """One call of one layer. The operations `first` to `last` (without) of the graph were made in it.

    `arguments` are what it was called with, `(args, kwargs)`; `inputs` and `outputs` name the tensors among them.
    `children` are the calls made within it, in order.
    """

    layer: Any
    first: int
    last: int
    arguments: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    children: tuple["Call", ...]

    def __contains__(self, operation: int) -> bool:
        return self.first <= operation < self.last


class Reference:
    """The graph of `model(x, training=False)` and its values on images; `order` numbers its operations by name.

    Raises:
        ConversionError: the model has never been called, so that its input is unknown.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self.model = model
        self.signature = signature(model)
        made: list[Call] = []
        self.inputs: dict[str, str] = {}

        def observed(inputs: dict[str, tf.Tensor]) -> Any:
            self.inputs.update({name: tensor.name for name, tensor in inputs.items()})
            with _recording(made), _functions_inline():
                return call(model, inputs)

        self._traced = tf.function(observed, autograph=False).get_concrete_function(self._specification())
        self._constants: dict[str, np.ndarray] = {}
        self._replaced: dict[str, np.ndarray] = {}
        outputs = output_names(model, self._traced.outputs)
        self.outputs = {name: self._computed(tensor) for name, tensor in outputs.items()}
        self.root = made[0]
        self.calls = list(_all_calls(self.root))
        self._operations = self._traced.graph.get_operations()
        self.order = {operation.name: k for k, operation in enumerate(self._operations)}

    def _specification(self) -> dict[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) for name, spec in self.signature.items()}

    @staticmethod
    def _computed(output: tf.Tensor) -> str:
        """The tensor behind the identities that a function wraps its outputs in."""
        while output.op.type == "Identity":
            output = output.op.inputs[0]
        return str(output.name)

    def operation(self, index: int) -> tf.Operation:
        return self._operations[index]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """A named tensor's shape without the batch."""
        name, _, output = tensor.partition(":")
        return tuple(self._operations[self.order[name]].outputs[int(output)].shape[1:])

    def operations(self, within: Call, kinds: Sequence[str]) -> list[tf.Operation]:
        """The operations of some kinds that a call made."""
        return [operation for operation in self._operations[within.first : within.last] if operation.type in kinds]

    def depends_on(self, tensor: str, kinds: Sequence[str]) -> bool:
        """Whether operations of some kinds take part in computing a named tensor."""
        return any(operation.type in kinds for operation in self._ancestors(tensor))

    def is_constant(self, tensor: str) -> bool:
        """Whether a named tensor depends on no input."""
        inputs = {name.split(":")[0] for name in self.inputs.values()}
        return not any(operation.name in inputs for operation in self._ancestors(tensor))

    def _ancestors(self, tensor: str) -> Iterator[tf.Operation]:
        waiting = [self._operations[self.order[tensor.split(":")[0]]]]
        seen = {waiting[0].name}
        while waiting:
            operation = waiting.pop()
            yield operation
            unseen = [value.op for value in operation.inputs if value.op.name not in seen]
            seen.update(source.name for source in unseen)
            waiting += unseen

    def with_constants(self, values: Mapping[str, np.ndarray]) -> "Reference":
        """What Keras computes with other values in the place of named constants."""
        other = copy.copy(self)
        other._replaced = {**self._replaced, **values}
        other._constants = {}
        other.__dict__.pop("_session", None)
        return other

    def innermost(self, operation: int) -> Call | None:
        """The call that made an operation: the layer itself, not the model around it."""
        around = [call for call in self.calls if operation in call]
        return min(around, key=lambda call: call.last - call.first, default=None)

    def layer_name(self, operation: int) -> str:
        """The name of the layer that an operation belongs to; a quantizer belongs to the layer that uses it."""
        around = sorted((call for call in self.calls if operation in call), key=lambda call: call.last - call.first)
        for made in around:
            if not is_quantizer(made.layer):
                return str(made.layer.name)
        return str(self._operations[operation].name)

    def constants(self, tensors: Sequence[str]) -> list[np.ndarray]:
        """The values of named tensors that depend on no input, such as binarized kernels."""
        missing = [name for name in dict.fromkeys(tensors) if name not in self._constants]
        if missing:
            self._constants |= dict(zip(missing, self._fetch({}, missing), strict=True))
        return [self._constants[name] for name in tensors]

    def values(self, inputs: Mapping[str, np.ndarray], tensors: Sequence[str]) -> list[np.ndarray]:
        """The values of named tensors (`operation:0`) for a batch of inputs."""
        size = len(next(iter(inputs.values())))
        batches = [{name: array[k : k + _BATCH] for name, array in inputs.items()} for k in range(0, size, _BATCH)]
        parts = [self._fetch(batch, tensors) for batch in batches]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def logits(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name for a batch of inputs."""
        return dict(zip(self.outputs, self.values(inputs, list(self.outputs.values())), strict=True))

    def _fetch(self, inputs: Mapping[str, np.ndarray], tensors: Sequence[str]) -> list[np.ndarray]:
        """Runs the part of the graph that the tensors need."""
        fed = {self.inputs[name]: array for name, array in inputs.items()}
        return self._session.run(list(tensors), {**self._replaced, **fed})

    def rest(self) -> None:
        """Frees the memory that values were computed in, some ten times that of the weights, until the next are."""
        session = self.__dict__.pop("_session", None)
        if session is not None:
            session.close()

    @functools.cached_property
    def _session(self) -> Any:
        """A session runs any part of the graph; a function would copy it first.

        The graph runs as it was traced: Grappler would compute something slightly else, and its constant folding ends
        the process where a multiplication after a convolution has constants of certain shapes (TensorFlow 2.21).
        """
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        return tf.compat.v1.Session(graph=self._frozen, config=config)

    @functools.cached_property
    def _frozen(self) -> tf.Graph:
        """The graph with its variables as constants."""
        frozen = convert_variables_to_constants_v2(self._traced).graph.as_graph_def()
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(frozen, name="")
        return graph


def signature(model: tf.keras.Model) -> dict[str, tf.TensorSpec]:
    """The model's inputs by name, in order, with a batch of 1.

    Raises:
        ConversionError: the model was never called, or a height, width or number of channels is unknown.
    """
    found = model.save_spec()
    if found is None:
        raise ConversionError(f"model '{model.name}' has no known input: call it on one batch before converting")
    specs = tf.nest.flatten(found[0])
    names = list(getattr(model, "input_names", None) or [spec.name or f"input_{k}" for k, spec in enumerate(specs)])
    for name, spec in zip(names, specs, strict=True):
        if None in spec.shape[1:].as_list():
            raise ConversionError(
                f"input '{name}' of model '{model.name}' has an unknown size: received {tuple(spec.shape)}, "
                f"build it with a fixed height and width"
            )
    return {
        name: tf.TensorSpec([1, *spec.shape[1:]], spec.dtype, name=name)
        for name, spec in zip(names, specs, strict=True)
    }


def call(model: tf.keras.Model, inputs: dict[str, tf.Tensor]) -> Any:
    """The model's outputs for its inputs by name, as at inference."""
    values = list(inputs.values())
    return model(values[0] if len(values) == 1 else values, training=False)


def output_names(model: tf.keras.Model, outputs: Any) -> dict[str, tf.Tensor]:
    """The outputs by name: the output layers' names, numbered where a model has none."""
    values = tf.nest.flatten(outputs)
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(values) or len(set(names)) != len(names):
        names = ["output"] if len(values) == 1 else [f"output_{k}" for k in range(len(values))]
    return dict(zip(names, values, strict=True))


def is_quantizer(layer: Any) -> bool:
    """Whether a layer is one of Larq's quantizers."""
    return isinstance(layer, lq.quantizers.Quantizer)


def _names(values: Any) -> tuple[str, ...]:
    """The names of all tensors in a nest, in order."""
    return tuple(value.name for value in tf.nest.flatten(values) if tf.is_tensor(value))


@contextlib.contextmanager
def _functions_inline() -> Iterator[None]:
    """Traces the bodies of nested functions (Keras's grouped convolution is one) into the graph itself."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _all_calls(call: Call) -> Iterator[Call]:
    """A call and all within it, in order of execution."""
    yield call
    for child in call.children:
        yield from _all_calls(child)


@contextlib.contextmanager
def _recording(made: list[Call]) -> Iterator[None]:
    """Notes each call of each layer in the graph that is being traced; calls within a call are its children."""
    original = tf.keras.layers.Layer.__call__
    open_calls = [made]

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        graph = tf.compat.v1.get_default_graph()
        first = len(graph.get_operations())
        children: list[Call] = []
        open_calls.append(children)
        try:
            outputs = original(self, *args, **kwargs)
        finally:
            open_calls.pop()
        last, arguments = len(graph.get_operations()), (args, kwargs)
        call = Call(self, first, last, arguments, _names(arguments), _names(outputs), tuple(children))
        open_calls[-1].append(call)
        return outputs

    tf.keras.layers.Layer.__call__ = __call__
    try:
        yield
    finally:
        tf.keras.layers.Layer.__call__ = original
