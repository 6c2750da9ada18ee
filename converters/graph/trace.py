"""Traces a Keras model: its graph at inference, and which layer made which operations."""

import bisect
import contextlib
import copy
import functools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import larq as lq
import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import ops
from tensorflow.python.framework.convert_to_constants import (
    _FunctionConverterDataInEager,
    _replace_variables_by_constants,
)
from tensorflow.python.grappler import tf_optimizer

from kbnn.compiled import uncompiled
from kbnn.converters.errors import ConversionError
from kbnn.layer_calls import watched
from kbnn.structure import reachable_layers

# A tensor, or tensors and other arguments in tuples, lists and dictionaries: TensorFlow has no type for such a nest.
Nest: TypeAlias = Any
Arguments: TypeAlias = tuple[tuple[object, ...], dict[str, object]]

_BATCH = 16
# A batch size that no other axis has by chance, so that it shows whether a value's first axis is the batch.
_SAMPLES = 100003
# Larq changes a layer's padding during its call, so only one thread at a time traces a model or reads its layers.
TRACING = threading.Lock()
# The operations of a loop, such as that of a recurrent layer.
LOOPS = ("While", "StatelessWhile")
_FUNCTION_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclass(frozen=True)
class Traced:
    """A tensor of the traced graph among the arguments of a call."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call of one layer, which made the operations `first` to `last` (exclusive) of the graph.

    `arguments` holds its args and kwargs. `inputs` and `outputs` name the tensors of the graph among its arguments and
    results; `has_constants` tells whether there are other arrays among the arguments. `children` are the calls within
    it, in order.
    """

    layer: tf.keras.layers.Layer
    first: int
    last: int
    arguments: Arguments
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    children: tuple["Call", ...]
    has_constants: bool = False

    def __contains__(self, operation: int) -> bool:
        return self.first <= operation < self.last

    def nested(self) -> Iterator["Call"]:
        """This call and all calls within it, in execution order."""
        yield self
        for child in self.children:
            yield from child.nested()


class Reference:
    """The graph of `model(x, training=False)` and its values on images; `order` numbers its operations by name.

    Variables are frozen to constants, functions are inlined, and identities are skipped, so that a tensor has the name
    of the operation that computed it. Operations that no output depends on are left out. With `batch`, the graph works
    for that many samples only, and the shapes in loops are static.

    `calls` are the calls of layers in this graph; `hidden` are the layers that are called only in other graphs, such as
    those of a `tf.function` or `tf.cond` within the model.

    Raises:
        ConversionError: the model has never been called, so its input is unknown, or its code branches on tensors.
    """

    def __init__(self, model: tf.keras.Model, batch: int | None = None) -> None:
        self.model = model
        self.signature = signature(model)
        recorder = _Recorder()
        fed: dict[str, str] = {}

        def observed(inputs: dict[str, tf.Tensor]) -> Nest:
            fed.update({name: tensor.name for name, tensor in inputs.items()})
            with watched(reachable_layers(model), recorder):
                return call(model, inputs)

        with TRACING, uncompiled(), _without_control_flow(model):
            traced = tf.function(observed, autograph=False).get_concrete_function(self._specification(batch))
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
        except ValueError:  # A constant has a batch of 1, so the network works with this batch size only.
            self._samples = self._batch = 1
            self._shapes = _shapes(self.graph_def, fed, self._samples)
        self._constants: dict[str, np.ndarray] = {}
        self._replaced: dict[str, np.ndarray] = {}
        self.inputs = fed
        self.outputs = {name: self.source(tensor) for name, tensor in outputs.items()}
        self.root = self._renumbered(recorder.root, [place for place, _ in found])
        self.calls = list(self.root.nested())
        called = {id(call.layer) for call in self.calls}
        self.hidden = [layer for layer in recorder.hidden if id(layer) not in called]

    def _specification(self, batch: int | None) -> dict[str, tf.TensorSpec]:
        return {name: tf.TensorSpec([batch, *spec.shape[1:]], spec.dtype) for name, spec in self.signature.items()}

    def _renumbered(self, made: Call, places: list[int]) -> Call:
        """Adapts a call to the frozen graph, in which operations have other numbers and some are left out."""
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
        """Whether an output depends on a tensor, by name."""
        return tensor.split(":")[0] in self.order

    def tensor(self, name: str) -> tf.Tensor:
        """The tensor with this name."""
        operation, _, output = name.partition(":")
        return self._operations[self.order[operation]].outputs[int(output)]

    def source(self, name: str) -> str:
        """The name of the tensor that a named one is a copy of."""
        tensor = self.tensor(name)
        while tensor.op.type == "Identity":
            tensor = tensor.op.inputs[0]
        return str(tensor.name)

    def operation(self, index: int) -> tf.Operation:
        return self._operations[index]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a named tensor without the batch axis."""
        # Sizes that are not static become 0, which no operation accepts.
        return tuple(size or 0 for size in self._shapes[tensor][1:])

    def is_per_sample(self, tensor: str) -> bool:
        """Whether the first axis of a named tensor is the batch."""
        return self._shapes[tensor][:1] == (self._samples,)

    def grows_with_batch(self, tensor: str) -> bool:
        """Whether the first axis of a named tensor is the batch, or a multiple of it."""
        return any(size is None or size % self._samples == 0 for size in self._shapes[tensor][:1])

    def operations(self, within: Call, kinds: Sequence[str]) -> list[tf.Operation]:
        """The operations of certain types within a call."""
        return [operation for operation in self._operations[within.first : within.last] if operation.type in kinds]

    def depends_on(self, tensor: str, kinds: Sequence[str]) -> bool:
        """Whether a named tensor depends on an operation of certain types."""
        return any(operation.type in kinds for operation in self._ancestors(tensor))

    def is_constant(self, tensor: str) -> bool:
        """Whether a named tensor is independent of all inputs."""
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
        """A copy in which named constants have other values."""
        other = copy.copy(self)
        other._replaced = {**self._replaced, **values}
        other._constants = {}
        other.__dict__.pop("_session", None)
        return other

    def innermost(self, operation: int) -> Call | None:
        """The innermost call that made an operation: the layer's call, not that of the model around it."""
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
        """The values of named tensors that are independent of all inputs, such as binarized kernels."""
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
        """The value of a named tensor, given the values of tensors that it depends on."""
        return np.asarray(self._session.run(tensor, {**self._replaced, **given}))

    def _fetch(self, inputs: Mapping[str, np.ndarray], tensors: Sequence[str]) -> list[np.ndarray]:
        """Runs the part of the graph that the tensors need."""
        fed = {self.inputs[name]: array for name, array in inputs.items()}
        return self._session.run(list(tensors), {**self._replaced, **fed})

    def release(self) -> None:
        """Closes the session, which holds about ten times the memory of the weights; the next use opens another."""
        session = self.__dict__.pop("_session", None)
        if session is not None:
            session.close()

    @functools.cached_property
    def _session(self) -> tf.compat.v1.Session:
        """A session can run any part of the graph; a function would have to copy it first.

        Grappler is off. It changes results slightly, and its constant folding crashes the process if a multiplication
        after a convolution has constants of certain shapes (TensorFlow 2.21).
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


def call(model: tf.keras.Model, inputs: dict[str, tf.Tensor]) -> Nest:
    """Calls the model on inputs by name, as at inference."""
    values = list(inputs.values())
    return model(values[0] if len(values) == 1 else values, training=False)


def output_names(model: tf.keras.Model, outputs: Nest) -> dict[str, tf.Tensor]:
    """The outputs by the names of the output layers; numbered if the model has no such names."""
    values = tf.nest.flatten(outputs)
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(values) or len(set(names)) != len(names):
        names = ["output"] if len(values) == 1 else [f"output_{k}" for k in range(len(values))]
    return dict(zip(names, values, strict=True))


def is_quantizer(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer is one of Larq's quantizers."""
    return isinstance(layer, lq.quantizers.Quantizer)


class _Recorder:
    """Records every layer call in the graph that is being traced; calls within a call are its children."""

    def __init__(self) -> None:
        self._graph: tf.Graph | None = None
        self._open: list[tuple[int, Arguments, list[Call]] | None] = []
        self._made: list[Call] = []
        self.hidden: list[tf.keras.layers.Layer] = []

    @property
    def root(self) -> Call:
        return self._made[0]

    def enter(self, layer: tf.keras.layers.Layer, args: tuple[object, ...], kwargs: dict[str, object]) -> Arguments:
        self._graph = self._graph or _graph()
        # Calls in other graphs do not count: in the body of a loop, or to infer the shape of an output.
        if _graph() is not self._graph:
            self.hidden.append(layer)
            self._open.append(None)
            return args, kwargs
        args, kwargs = _named((args, kwargs))
        self._open.append((len(_graph().get_operations()), (args, kwargs), []))
        return args, kwargs

    def leave(self, layer: tf.keras.layers.Layer, outputs: Nest) -> Nest:
        opened = self._open.pop()
        if opened is None:
            return outputs
        first, arguments, children = opened
        outputs = _named(_at_inference(layer, arguments, outputs))
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


@contextlib.contextmanager
def _without_control_flow(model: tf.keras.Model) -> Iterator[None]:
    """Raises ConversionError instead of the error that Python's `if` or `for` on a tensor gives in a graph."""
    try:
        yield
    except tf.errors.OperatorNotAllowedInGraphError as error:
        layer = re.search(r"layer '([^']*)'", str(error))
        raise ConversionError(
            f"layer '{layer[1] if layer else model.name}' uses Python's if, for or while on a tensor, which cannot be "
            f"converted: use Python numbers, or functions such as tf.where"
        ) from error


def _graph() -> tf.Graph:
    return tf.compat.v1.get_default_graph()


def _at_inference(layer: tf.keras.layers.Layer, arguments: Arguments, outputs: Nest) -> Nest:
    """The outputs of a layer.

    Keras's `RandomCrop` chooses them by a condition in the graph. Its other branch draws random numbers, and cannot be
    frozen, so this computes the outputs at inference again, without a condition.
    """
    if type(layer) is not tf.keras.layers.RandomCrop:
        return outputs
    args, kwargs = arguments
    resized = tf.keras.preprocessing.image.smart_resize(
        args[0] if args else kwargs["inputs"], (layer.height, layer.width)
    )
    return tf.cast(resized, layer.compute_dtype)


def _is_traced(value: object) -> bool:
    return isinstance(value, tf.Tensor) and tf.is_symbolic_tensor(value) and value.graph is _graph()


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | tf.Variable) or (tf.is_tensor(value) and not _is_traced(value))


def _names(values: Nest) -> tuple[str, ...]:
    """The names of the traced graph's tensors in a nest, in order."""
    return tuple(value.name for value in tf.nest.flatten(values) if _is_traced(value))


def _named(values: Nest) -> Nest:
    """Copies the results of functions, so that their names survive when the functions are inlined."""
    return tf.nest.map_structure(
        lambda value: tf.identity(value) if _is_traced(value) and value.op.type in _FUNCTION_CALLS else value, values
    )


def _frozen(traced: tf.types.experimental.ConcreteFunction) -> GraphDef:
    """A traced function's graph with its variables as constants and its functions inlined, except for loops.

    `convert_variables_to_constants_v2` does the same, and then builds a function of the graph, which takes most of its
    time.
    """
    variables = _FunctionConverterDataInEager(func=traced, lower_control_flow=False, aggressive_inlining=False)
    graph_def, _ = _replace_variables_by_constants(variables)
    ends = {tensor.op.name for tensor in (*traced.inputs, *traced.outputs)}
    kept = [node.name for node in graph_def.node if node.name in ends]
    _prune(graph_def, kept)
    if any(node.op in _FUNCTION_CALLS for node in graph_def.node):
        graph_def = _inlined(graph_def, kept)
    for node in graph_def.node:
        for attribute in ("_gradient_op_type", "_class"):
            node.attr.pop(attribute, None)
    return graph_def


def _prune(graph_def: GraphDef, kept: Sequence[str]) -> None:
    """Removes the operations that the kept ones do not depend on.

    Outputs also wait for operations with side effects, such as random generators; nothing waits for these here.
    """
    for node in (node for node in graph_def.node if node.name in kept):
        inputs_only = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(inputs_only)
    inputs = {node.name: [name.lstrip("^").split(":")[0] for name in node.input] for node in graph_def.node}
    needed: set[str] = set()
    found = list(kept)
    while found:
        name = found.pop()
        if name not in needed:
            needed.add(name)
            found += inputs[name]
    nodes = [node for node in graph_def.node if node.name in needed]
    del graph_def.node[:]
    graph_def.node.extend(nodes)


def _inlined(graph_def: GraphDef, kept: Sequence[str]) -> GraphDef:
    """Inlines also the functions that are marked for XLA, such as Keras's grouped convolution."""
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


def _forget_gradients(graph: tf.Graph) -> None:
    """Unregisters the custom gradients of a traced graph, which is never differentiated.

    TensorFlow keeps them for the life of the process, and with them the graph.
    """
    registry = ops.gradient_registry._registry
    for operation in graph.get_operations():
        with contextlib.suppress(ValueError):
            registry.pop(operation.get_attr("_gradient_op_type").decode(), None)


def _place(name: str, places: Mapping[str, int]) -> int:
    """The position of an operation in the traced graph; an inlined operation has that of the function's call.

    The name of an inlined operation begins with the name of the call, after `Func/` if it passes a value.
    """
    caller = name.removeprefix("Func/")
    while caller and caller not in places:
        caller = caller.rpartition("/")[0]
    return places.get(caller, -1)


def _shapes(graph_def: GraphDef, inputs: Mapping[str, str], samples: int) -> dict[str, tuple[int | None, ...]]:
    """The static shape of each tensor for a batch of `samples`; empty if the rank is unknown.

    Raises:
        ValueError: the network does not work with this batch size.
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
