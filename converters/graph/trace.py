"""What Keras computes, operation by operation: the graph of a model at inference, and which layer made what."""

import bisect
import contextlib
import copy
import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer

from kbnn.converters.errors import ConversionError
from kbnn.layer_calls import layers_of, watched

_BATCH = 16
# A batch that no axis of a network has by chance: it tells which values have one sample per entry of their first axis.
_SAMPLES = 100003
# Larq changes a layer's padding while the layer is called, so a model is traced by one thread at a time.
_TRACING = threading.Lock()
_FUNCTION_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(frozen=True)
class Traced:
    """Stands for a tensor of the traced graph among a call's arguments."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call of one layer, which made the operations `first` to `last` (exclusive) of the graph.

    `arguments` are what it was called with, `(args, kwargs)`. `inputs` and `outputs` name the graph's tensors among its
    arguments and results; `has_constants` says that other arrays are among the arguments. `children` are the calls made
    within it, in order.
    """

    layer: Any
    first: int
    last: int
    arguments: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    children: tuple["Call", ...]
    has_constants: bool = False

    def __contains__(self, operation: int) -> bool:
        return self.first <= operation < self.last

    def nested(self) -> Iterator["Call"]:
        """This call and all within it, in order of execution."""
        yield self
        for child in self.children:
            yield from child.nested()


class Reference:
    """The graph of `model(x, training=False)` and its values on images; `order` numbers its operations by name.

    Variables are constants in it, functions are inlined, and identities are looked through: a tensor's name is that of
    the operation that computed it. What no output needs is left out.

    Raises:
        ConversionError: the model has never been called, so its input is unknown.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self.model = model
        self.signature = signature(model)
        recorder = _Recorder()
        fed: dict[str, str] = {}

        def observed(inputs: dict[str, tf.Tensor]) -> Any:
            fed.update({name: tensor.name for name, tensor in inputs.items()})
            with watched(layers_of(model), recorder):
                return call(model, inputs)

        with _TRACING:
            traced = tf.function(observed, autograph=False).get_concrete_function(self._specification())
        outputs = {name: tensor.name for name, tensor in output_names(model, traced.outputs).items()}
        self.graph_def = _frozen(traced)
        places = {operation.name: k for k, operation in enumerate(traced.graph.get_operations())}
        _forget_gradients(traced.graph)
        del traced
        self._graph = tf.Graph()
        with self._graph.as_default():
            tf.graph_util.import_graph_def(self.graph_def, name="")
        found = [(_place(operation.name, places), operation) for operation in self._graph.get_operations()]
        found.sort(key=lambda pair: pair[0])
        self._operations = [operation for _, operation in found]
        self.order = {operation.name: k for k, operation in enumerate(self._operations)}
        try:
            self._samples, self._batch = _SAMPLES, _BATCH
            self._shapes = _shapes(self.graph_def, fed, self._samples)
        except ValueError:  # It holds a constant with a batch of 1, and works with such a batch only.
            self._samples = self._batch = 1
            self._shapes = _shapes(self.graph_def, fed, self._samples)
        self._constants: dict[str, np.ndarray] = {}
        self._replaced: dict[str, np.ndarray] = {}
        self.inputs = fed
        self.outputs = {name: self.source(tensor) for name, tensor in outputs.items()}
        self.root = self._renumbered(recorder.root, [place for place, _ in found])
        self.calls = list(self.root.nested())

    def _specification(self) -> dict[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) for name, spec in self.signature.items()}

    def _renumbered(self, made: Call, places: list[int]) -> Call:
        """A call as the frozen graph has it, where operations are numbered otherwise and some are left out."""
        return replace(
            made,
            first=bisect.bisect_left(places, made.first),
            last=bisect.bisect_left(places, made.last),
            inputs=tuple(self.source(name) for name in made.inputs if self.has(name)),
            outputs=tuple(self.source(name) for name in made.outputs if self.has(name)),
            children=tuple(self._renumbered(child, places) for child in made.children),
            has_constants=made.has_constants or not all(map(self.has, made.inputs)),
        )

    def has(self, tensor: str) -> bool:
        """Whether a named tensor takes part in the outputs."""
        return tensor.split(":")[0] in self.order

    def tensor(self, name: str) -> tf.Tensor:
        """The graph's tensor of a name."""
        operation, _, output = name.partition(":")
        return self._operations[self.order[operation]].outputs[int(output)]

    def source(self, name: str) -> str:
        """The tensor that a named one is a copy of."""
        tensor = self.tensor(name)
        while tensor.op.type == "Identity":
            tensor = tensor.op.inputs[0]
        return str(tensor.name)

    def operation(self, index: int) -> tf.Operation:
        return self._operations[index]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """A named tensor's shape without the batch."""
        # A size that is not static is 0, which no operation accepts.
        return tuple(size or 0 for size in self._shapes[tensor][1:])

    def is_per_sample(self, tensor: str) -> bool:
        """Whether a named tensor's first axis is the batch."""
        return self._shapes[tensor][:1] == (self._samples,)

    def operations(self, within: Call, kinds: Sequence[str]) -> list[tf.Operation]:
        """The operations of some kinds that a call made."""
        return [operation for operation in self._operations[within.first : within.last] if operation.type in kinds]

    def depends_on(self, tensor: str, kinds: Sequence[str]) -> bool:
        """Whether operations of some kinds take part in computing a named tensor."""
        return any(operation.type in kinds for operation in self._ancestors(tensor))

    def is_constant(self, tensor: str) -> bool:
        """Whether a named tensor depends on no input."""
        return tensor.split(":")[0] not in self._computed

    @functools.cached_property
    def _computed(self) -> set[str]:
        """The operations that depend on an input."""
        found = {name.split(":")[0] for name in self.inputs.values()}
        for operation in self._operations:
            if any(value.op.name in found for value in operation.inputs):
                found.add(operation.name)
        return found

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
        """What Keras computes with other values instead of named constants."""
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
        step = self._batch
        batches = [{name: array[k : k + step] for name, array in inputs.items()} for k in range(0, size, step)]
        parts = [self._fetch(batch, tensors) for batch in batches]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def logits(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name for a batch of inputs."""
        return dict(zip(self.outputs, self.values(inputs, list(self.outputs.values())), strict=True))

    def computed(self, tensor: str, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """The value of a named tensor for given values of those before it."""
        return np.asarray(self._session.run(tensor, {**self._replaced, **given}))

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

        The graph runs as it was traced: Grappler would compute something slightly different, and its constant folding
        ends the process where a multiplication after a convolution has constants of certain shapes (TensorFlow 2.21).
        """
        config = tf.compat.v1.ConfigProto()
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        return tf.compat.v1.Session(graph=self._graph, config=config)


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
        name: tf.TensorSpec([1, *spec.shape[1:]], tf.float32 if spec.dtype.is_floating else spec.dtype, name=name)
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


class _Recorder:
    """Notes each call of each layer in the graph that is being traced; calls within a call are its children."""

    def __init__(self) -> None:
        self._graph: tf.Graph | None = None
        self._open: list[tuple[int, Any, list[Call]] | None] = []
        self._made: list[Call] = []

    @property
    def root(self) -> Call:
        return self._made[0]

    def enter(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        self._graph = self._graph or _graph()
        # Layers are also called in other graphs: in the body of a loop, or to learn the shape of their output.
        if _graph() is not self._graph:
            self._open.append(None)
            return args, kwargs
        args, kwargs = _named((args, kwargs))
        self._open.append((len(_graph().get_operations()), (args, kwargs), []))
        return args, kwargs

    def leave(self, layer: Any, outputs: Any) -> Any:
        opened = self._open.pop()
        if opened is None:
            return outputs
        first, arguments, children = opened
        outputs = _named(outputs)
        made = Call(
            layer,
            first,
            len(_graph().get_operations()),
            tf.nest.map_structure(lambda value: Traced(value.name) if _is_traced(value) else value, arguments),
            _names(arguments),
            _names(outputs),
            tuple(children),
            any(_is_array(value) for value in tf.nest.flatten(arguments)),
        )
        around = self._open[-1] if self._open else None
        (self._made if around is None else around[2]).append(made)
        return outputs


def _graph() -> tf.Graph:
    return tf.compat.v1.get_default_graph()


def _is_traced(value: Any) -> bool:
    return isinstance(value, tf.Tensor) and tf.is_symbolic_tensor(value) and value.graph is _graph()


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | tf.Variable) or (tf.is_tensor(value) and not _is_traced(value))


def _names(values: Any) -> tuple[str, ...]:
    """The names of the traced graph's tensors in a nest, in order."""
    return tuple(value.name for value in tf.nest.flatten(values) if _is_traced(value))


def _named(values: Any) -> Any:
    """The same values, where what a function returned has a name that outlives the function's inlining."""
    return tf.nest.map_structure(
        lambda value: tf.identity(value) if _is_traced(value) and value.op.type in _FUNCTION_CALLS else value, values
    )


def _frozen(traced: Any) -> GraphDef:
    """A traced function's graph with its variables as constants and its functions inlined, loops aside."""
    graph_def = convert_variables_to_constants_v2(traced, lower_control_flow=False).graph.as_graph_def()
    if any(node.op in _FUNCTION_CALLS for node in graph_def.node):
        kept = {tensor.op.name for tensor in (*traced.inputs, *traced.outputs)}
        graph_def = _inlined(graph_def, [node.name for node in graph_def.node if node.name in kept])
    for node in graph_def.node:
        for attribute in ("_gradient_op_type", "_class"):
            node.attr.pop(attribute, None)
    return graph_def


def _inlined(graph_def: GraphDef, kept: Sequence[str]) -> GraphDef:
    """A graph with those functions inlined too that are to be compiled, as Keras's grouped convolution is."""
    inner = (node for function in graph_def.library.function for node in function.node_def)
    for holder in (*graph_def.node, *graph_def.library.function, *inner):
        for attribute in ("_XlaMustCompile", "_noinline"):
            holder.attr.pop(attribute, None)
    with tf.Graph().as_default():
        meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def _forget_gradients(graph: Any) -> None:
    """TensorFlow keeps each custom gradient that is traced into a graph for good, and with it the graph.

    Nothing differentiates this one.
    """
    registry = ops.gradient_registry._registry
    for operation in graph.get_operations():
        with contextlib.suppress(ValueError):
            registry.pop(operation.get_attr("_gradient_op_type").decode(), None)


def _place(name: str, places: Mapping[str, int]) -> int:
    """Where an operation stands in the traced graph; what a function held stands where the function is called.

    The name of what was inlined begins with that of the call, and `Func/` before it where values are passed.
    """
    caller = name.removeprefix("Func/")
    while caller and caller not in places:
        caller = caller.rpartition("/")[0]
    return places.get(caller, -1)


def _shapes(graph_def: GraphDef, inputs: Mapping[str, str], samples: int) -> dict[str, tuple[int | None, ...]]:
    """The static shape of each tensor for a batch of so many samples; none where the rank is unknown.

    Raises:
        ValueError: the network does not work with such a batch.
    """
    wanted = set(inputs.values())
    with tf.Graph().as_default() as graph:
        given = {
            f"{node.name}:0": tf.compat.v1.placeholder(
                node.attr["dtype"].type,
                [samples, *(axis.size for axis in node.attr["shape"].shape.dim[1:])],
                name="with_many_samples",
            )
            for node in graph_def.node
            if f"{node.name}:0" in wanted
        }
        tf.graph_util.import_graph_def(graph_def, input_map=given, name="")
        found = {value.name: value.shape for operation in graph.get_operations() for value in operation.outputs}
    shapes = {name: () if shape.rank is None else tuple(shape.as_list()) for name, shape in found.items()}
    return shapes | {name: tuple(value.shape.as_list()) for name, value in given.items()}
