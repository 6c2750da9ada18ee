"""Translates the operators of a bitpacked int8 .tflite file into steps of the C kernels: one writer per operator.

C code that is equal to the file bit for bit must start from the file's integers: LCE's converter chooses the scale,
zero point, multiplier and threshold of each value when `lower` writes the file, whereas kbnn's own graph has real
values and their ranges. Runs and models are therefore converted to a file first. An operator without a writer is
refused by name.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, overload

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Array, Field, Step, Struct, Tensor, Window, words_of
from kbnn.converters.errors import ConversionError
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File, Operator
from kbnn.errors import KbnnError

_LEVELS = np.arange(integer.LOW, integer.HIGH + 1)
_ELEMENTWISE = Window(in_place=True)
_LARGEST_SIZE = 2**16 - 1
# Convolutions of at most this many words expand their weights once, in RAM, instead of for every output.
_MOST_EXPANDED_WORDS = 1280
# A larger stride could place the second of two pixels beyond the ring, where the patch is stored.
_LONGEST_PAIR_STRIDE = 8
# Kernels, strides and padding are held in bytes.
_MOST_PADDING = 255
# The most exceptions per filter; with more, the results do not follow a line.
_MOST_EXCEPTIONS = 16
# How many values TensorFlow Lite's vector code computes at once. It rounds those that fill no vector differently.
_FLOAT_VECTOR, _INT8_VECTOR, _BROADCAST_VECTOR = 8, 16, 8
# The ranges that TensorFlow Lite's fused activations clip to, by number.
_ACTIVATIONS: dict[int, tuple[float, float]] = {
    0: (-math.inf, math.inf),
    1: (0.0, math.inf),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
# The ranges of the operators that do nothing but clip.
_RECTIFIERS = {"RELU": _ACTIVATIONS[1], "RELU_N1_TO_1": _ACTIVATIONS[2], "RELU6": _ACTIVATIONS[3]}


# Multiplier and shift of both terms of a sum, and of the sum.
_Multipliers = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Signs:
    """The signs of an int8 tensor, computed by the kernel that reads them; those of channels not in `mask` are +1."""

    tensor: Tensor
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Accumulator:
    """A binary convolution whose output form is not known yet."""

    operator: Operator
    bits: "Signs | Tensor"
    largest: int


@dataclass(frozen=True)
class Function:
    """A float value that depends on one integer at the same position.

    `tables` has its value for each of `levels` and channel, `(2, levels, C)`: in vectors, and where values fill none.
    """

    source: Tensor | Accumulator
    levels: np.ndarray
    tables: np.ndarray
    is_dequantized: bool = False


@dataclass(frozen=True)
class Derived:
    """An int8 tensor that is a function of another, channel by channel; a step is added only if something reads it.

    `table` has a value for each level and channel, `(256, C)`; `step` computes it if a kernel does so by itself.
    """

    source: Tensor
    table: np.ndarray
    tensor: Tensor
    step: Step | None = None


@dataclass(frozen=True)
class Padded:
    """An int8 tensor with zeros around it; `step` is added only if something reads it that does not pad by itself."""

    source: Tensor
    top: int
    left: int
    tensor: Tensor
    step: Step


@dataclass(frozen=True)
class Normalizing:
    """An intermediate float value of a layer normalization; `stage` says which one.

    mean, square (x²), mean_square, variance, factor (1/√(variance + ε)), scale (factor·scale_c), shift (mean·scale),
    scaled (x·scale), offset (offset_c - shift), normalized.
    """

    stage: str
    tensor: Tensor
    epsilon: float = 0.0
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None


@dataclass(frozen=True)
class Reordered:
    """An int8 tensor with its values in other places: `places` has the index of each in the tensor.

    A step is added only if something reads it that does not reorder it further.
    """

    tensor: Tensor
    places: np.ndarray
    operator: Operator


Value = Tensor | Signs | Function | Derived | Padded | Normalizing | Reordered
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@dataclass
class Lowering:
    """The steps so far, and what each tensor of the file is."""

    file: File
    values: dict[int, Value] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def tensor(self, operator: Operator, number: int = 0) -> Tensor:
        """An operand that is an int8 tensor in memory."""
        return self.of(operator, number, Tensor)

    @overload
    def of(self, operator: Operator, number: int, one: type[A], /) -> A: ...
    @overload
    def of(self, operator: Operator, number: int, one: type[A], other: type[B], /) -> A | B: ...
    @overload
    def of(self, operator: Operator, number: int, one: type[A], other: type[B], third: type[C], /) -> A | B | C: ...
    @overload
    def of(
        self, operator: Operator, number: int, one: type[A], other: type[B], third: type[C], fourth: type[D], /
    ) -> A | B | C | D: ...
    def of(self, operator: Operator, number: int, *kinds: type) -> object:
        """An operand that is of one of the given kinds.

        Raises:
            ConversionError: it is of another kind.
        """
        operand = operator.inputs[number]
        value = None if operand is None else self.values.get(operand.index)
        if isinstance(value, Derived | Padded | Reordered) and type(value) not in kinds:
            value = self.computed(value)
        if not isinstance(value, kinds):
            raise refused(operator, _unreadable(operand))
        return value

    def output(self, operator: Operator, number: int = 0, kind: str = "int8") -> Tensor:
        """A new tensor in memory for an operator's output."""
        item = operator.outputs[number]
        if item.dtype != {"int8": "int8", "bits": "int32"}[kind]:
            raise refused(operator, f"it writes {item.dtype}")
        height, width, channels = _image_shape(operator, item.shape)
        if kind == "bits":
            return Tensor(item.name, height, width, 32 * channels, "bits")
        scale, zero_point = _quantization(operator, item)
        made = Tensor(item.name, height, width, channels, "int8", scale, zero_point)
        self.values[item.index] = made
        return made

    def computed(self, value: "Derived | Padded | Reordered") -> Tensor:
        """Adds the step that computes a tensor that is not in memory yet, and returns the tensor."""
        index = next(index for index, held in self.values.items() if held is value)
        if isinstance(value, Reordered):
            step = _reordering_step(value.operator, value.tensor, value.places, self.output(value.operator))
        elif isinstance(value, Padded):
            step = value.step
        else:
            step = value.step or _function_step(value.source, value.table, value.tensor)
        self.add(step)
        self.values[index] = step.output
        return step.output

    def derive(
        self, operator: Operator, source: Tensor, table: np.ndarray, output: Tensor, step: Step | None = None
    ) -> None:
        """Records that an operator's output is a function of a tensor, given as a table."""
        self.values[operator.outputs[0].index] = Derived(source, table, output, step)

    def add(self, step: Step) -> None:
        self.steps.append(step)


def _unreadable(operand: flatbuffer.Tensor | None) -> str:
    """Why an operand cannot be read."""
    if operand is None:
        return "it reads nothing"
    if operand.dtype == "float32":
        return f"it reads '{operand.name}', which is float, and it has a form in int8 only"
    return f"it reads '{operand.name}' ({operand.dtype}), which has no form in C here"


# Advice for operators at the end of a network.
_SCORES = "end the network with the logits, whose largest is the predicted class"
# The prefix of the names of values that belong to no layer.
_UNNAMED = "unnamed"
_REMEDIES = {
    "LOG_SOFTMAX": _SCORES,
    "ARG_MAX": _SCORES,
}


def refused(operator: Operator, why: str) -> ConversionError:
    """The error about an operator that cannot be exported, by the name of what it computes."""
    tensors = (*operator.operands, *operator.outputs)
    form = (
        "convert to int8 for the device 'microcontroller', and " if any(t.dtype == "float32" for t in tensors) else ""
    )
    remedy = _REMEDIES.get(operator.name, f"{form}use the layers that docs/microcontrollers.md lists")
    return ConversionError(f"{_named(operator)} has no form in C: {why}; {remedy}")


def _named(operator: Operator) -> str:
    """An operator by its output, or by what it reads if the converter had no name for the output."""
    name = operator.outputs[0].name if operator.outputs else operator.name
    if name.startswith(_UNNAMED) and operator.operands:
        return f"the {operator.name} of '{operator.operands[0].name}'"
    return f"'{name}' ({operator.name})"


Writer = Callable[[Lowering, Operator], None]
_WRITERS: dict[str, Writer] = {}


def writes(*names: str) -> Callable[[Writer], Writer]:
    """Registers the writer of operators."""

    def decorator(writer: Writer) -> Writer:
        _WRITERS.update(dict.fromkeys(names, writer))
        return writer

    return decorator


@dataclass(frozen=True)
class Network:
    """A file as steps. `input` is the image in int8 and `output` the scores, with their indices in the file."""

    steps: tuple[Step, ...]
    input: Tensor
    output: Tensor
    input_index: int
    output_index: int


def write(file: File) -> Network:
    """The steps of a file.

    Raises:
        ConversionError: an operator has no integer form, or the network has several inputs or outputs.
    """
    if len(file.inputs) != 1 or len(file.outputs) != 1:
        raise ConversionError(
            f"C code has one input and one output: received {len(file.inputs)} and {len(file.outputs)}, export a "
            f"network with one of each"
        )
    (given,), (returned,) = file.inputs.values(), file.outputs.values()
    lowering = Lowering(file)
    with _damage("the input", given.name):
        image = _image(file, given, lowering)
    for written in file.operators:
        if written.outputs and written.outputs[0].index in lowering.values:
            continue
        operator = _named_after_layer(file, written)
        if operator.name not in _WRITERS:
            raise refused(operator, "there is no kernel for this operator")
        with _damage(operator.name, operator.outputs[0].name if operator.outputs else ""):
            _WRITERS[operator.name](lowering, operator)
    value = lowering.values.get(returned.index)
    if isinstance(value, Derived | Padded | Reordered):
        value = lowering.computed(value)
    if isinstance(value, Function) and isinstance(value.source, Tensor):
        value = value.source
    if not isinstance(value, Tensor) or value is image:
        raise ConversionError(
            f"the network's output '{returned.name}' is not int8: convert to int8 with calibration images"
        )
    indices = {id(held): index for index, held in lowering.values.items()}
    return _with_scores(lowering.steps, image, value, indices[id(image)], indices[id(value)])


def _named_after_layer(file: File, operator: Operator) -> Operator:
    """An operator whose output has the name of the QUANTIZE that follows, if the converter had no name for it."""
    output = operator.outputs[0] if operator.outputs else None
    if output is None or not output.name.startswith(_UNNAMED):
        return operator
    readers = file.consumers.get(output.index, [])
    if len(readers) != 1 or readers[0].name != "QUANTIZE":
        return operator
    named = dataclasses.replace(output, name=readers[0].outputs[0].name)
    return dataclasses.replace(operator, outputs=(named, *operator.outputs[1:]))


@contextlib.contextmanager
def _damage(kind: str, name: str) -> Iterator[None]:
    """Turns the exceptions that a tampered file causes, such as by a missing operand, into one error."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise KbnnError(
            f"cannot export {kind} '{name}': the file is damaged there ({error}); convert the model again"
        ) from error


def _image(file: File, given: flatbuffer.Tensor, lowering: Lowering) -> Tensor:
    """The network's input in int8: the input itself, or the output of the operator that quantizes it."""
    readers = file.consumers[given.index]
    item = given
    if given.dtype == "float32" and len(readers) == 1 and readers[0].name == "QUANTIZE":
        item = readers[0].outputs[0]
    if item.dtype != "int8":
        raise ConversionError(
            f"input '{given.name}' of the network is {given.dtype} and is not quantized to int8: convert the model to "
            f"int8 for the device 'microcontroller'"
        )
    sizes = _sizes(item.shape)
    if sizes is None:
        raise ConversionError(
            f"input '{given.name}' of the network has the shape {item.shape}: C code takes one vector, signal (length, "
            f"channels) or image (height, width, channels) of at most {_LARGEST_SIZE} values per axis"
        )
    height, width, channels = sizes
    image = Tensor("image", height, width, channels, "int8", item.scales[0], item.zero_points[0], "image")
    lowering.values[item.index] = image
    return image


def _with_scores(steps: Sequence[Step], image: Tensor, output: Tensor, input_index: int, output_index: int) -> Network:
    """Moves the output from the arena to the scores."""
    scores = dataclasses.replace(output, memory="scores")

    def moved(tensor: Tensor) -> Tensor:
        return scores if tensor is output else tensor

    made = tuple(
        dataclasses.replace(step, inputs=tuple(moved(t) for t in step.inputs), output=moved(step.output))
        for step in steps
    )
    return Network(made, image, scores, input_index, output_index)


def _image_shape(operator: Operator, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels."""
    sizes = _sizes(shape)
    if sizes is None:
        raise refused(operator, f"its output has the shape {shape}, which is not one vector, signal or image")
    return sizes


def _sizes(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Height, width and channels of one sample: a signal has one row, a vector one pixel."""
    if not 2 <= len(shape) <= 4 or shape[0] != 1 or not 1 <= min(shape) <= max(shape) <= _LARGEST_SIZE:
        return None
    height, width, channels = (1,) * (4 - len(shape)) + shape[1:]
    return height, width, channels


def _quantization(operator: Operator, item: flatbuffer.Tensor) -> tuple[float, int]:
    if len(item.scales) != 1 or len(item.zero_points) != 1:
        raise refused(operator, f"'{item.name}' has {len(item.scales)} scales")
    return item.scales[0], item.zero_points[0]


def _clipping(operator: Operator, output: Tensor) -> tuple[int, int]:
    """The int8 range of an operator with its fused activation."""
    return _levels_between(output, *_fused_activation(operator))


def _fused_activation(operator: Operator, option: str = "fusedActivationFunction") -> tuple[float, float]:
    """The range that an operator's fused activation clips to."""
    number = operator.options.get(option) or 0
    if number not in _ACTIVATIONS:
        raise refused(operator, f"it has the fused activation {number}")
    return _ACTIVATIONS[number]


def _levels_between(output: Tensor, low: float, high: float) -> tuple[int, int]:
    """The int8 levels of a range."""
    scale = np.float32(output.scale)
    levels = [
        limit if math.isinf(limit) else float(integer.rounded(np.array([limit], np.float32) / scale)[0])
        for limit in (low, high)
    ]
    bounds = [level + output.zero_point for level in levels]
    return int(max(integer.LOW, bounds[0])), int(min(integer.HIGH, bounds[1]))


@dataclass(frozen=True)
class _Geometry:
    """Kernel, strides, dilations and padding of an operator that slides over the image."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[int, int]
    is_padded: bool

    @staticmethod
    def of(operator: Operator, image: Tensor, kernel: tuple[int, int], output: tuple[int, ...]) -> "_Geometry":
        options = operator.options
        strides = (_option(options, "strideH", "stride_height"), _option(options, "strideW", "stride_width"))
        dilations = (
            _option(options, "dilationHFactor", "dilation_height_factor"),
            _option(options, "dilationWFactor", "dilation_width_factor"),
        )
        # 0 is SAME, 1 is VALID.
        same = not options.get("padding", 0)
        sizes = zip((image.height, image.width), kernel, strides, dilations, output[1:3], strict=True)
        missing = [max((out - 1) * stride + (k - 1) * d + 1 - size, 0) for size, k, stride, d, out in sizes]
        before = (missing[0] // 2, missing[1] // 2) if same else (0, 0)
        if max(*kernel, *strides, *dilations, *before) > _MOST_PADDING:
            raise refused(operator, f"a kernel of {kernel} with strides {strides} is too large")
        return _Geometry(kernel, strides, dilations, before, same and any(missing))

    @property
    def extent(self) -> int:
        """The rows from the first to the last that the kernel touches."""
        return (self.kernel[0] - 1) * self.dilations[0] + 1

    @property
    def fields(self) -> dict[str, int]:
        """Strides and padding, as every kernel's parameters name them."""
        (stride_y, stride_x), (pad_top, pad_left) = self.strides, self.padding
        return {"stride_y": stride_y, "stride_x": stride_x, "pad_top": pad_top, "pad_left": pad_left}

    def around(self, top: int, left: int) -> "_Geometry":
        """The geometry including the zeros that a separate padding operator puts around the image."""
        return dataclasses.replace(self, padding=(self.padding[0] + top, self.padding[1] + left))

    def window(self, *, buffered: bool = False) -> Window:
        return Window(self.strides[0], self.extent, self.padding[0], buffered)

    def padded_width(self, width: int, out_width: int) -> int:
        """The columns of a row with all its padding."""
        reach = (out_width - 1) * self.strides[1] + (self.kernel[1] - 1) * self.dilations[1] + 1
        return max(self.padding[1] + width, reach)


def _option(options: flatbuffer.Attributes, *names: str) -> int:
    return next((int(options[name]) for name in names if options.get(name)), 1)


# ---- Float operators between int8 tensors ----------------------------------------------------------------------------


@writes("DEQUANTIZE")
def _dequantize(lowering: Lowering, operator: Operator) -> None:
    source = lowering.tensor(operator)
    # The interpreter's vector code subtracts after the multiplication.
    scale = np.float32(source.scale)
    vectors = scale * _LEVELS.astype(np.float32) - scale * np.float32(source.zero_point)
    rest = scale * (_LEVELS - source.zero_point).astype(np.float32)
    tables = np.repeat(np.stack([vectors, rest])[..., None], source.channels, axis=2)
    lowering.values[operator.outputs[0].index] = Function(source, _LEVELS, tables, is_dequantized=True)


@writes("QUANTIZE")
def _quantize(lowering: Lowering, operator: Operator) -> None:
    value = lowering.of(operator, 0, Function, Normalizing, Derived, Tensor)
    if isinstance(value, Normalizing):
        _normalize(lowering, operator, value)
        return
    output = lowering.output(operator)
    if isinstance(value, Function):
        rules = (integer.to_int8, integer.to_int8_alone)
        tables = [rule(table, *_levels_of(output)) for rule, table in zip(rules, value.tables, strict=True)]
        _write_function(lowering, operator, value, np.stack(tables), output)
    else:
        _requantize(lowering, operator, value, output)


def _requantize(lowering: Lowering, operator: Operator, value: Derived | Tensor, output: Tensor) -> None:
    """From int8 to other int8 levels."""
    before = value.tensor if isinstance(value, Derived) else value
    multiplier = integer.quantized_multiplier(float(_product(before.scale) / _product(output.scale)))
    x = _LEVELS - before.zero_point
    rules = (integer.rescaled_up, integer.rescaled)
    results = np.stack([integer.saturated(rule(x, *multiplier) + output.zero_point) for rule in rules])
    source, levels = before, np.repeat(_LEVELS[:, None], before.channels, axis=1)
    if isinstance(value, Derived):
        source, levels = value.source, value.table.astype(np.int64)
    _derive_in_vectors(lowering, operator, source, results[:, levels - integer.LOW], output, _INT8_VECTOR)


def _derive_in_vectors(
    lowering: Lowering, operator: Operator, source: Tensor, tables: np.ndarray, output: Tensor, vector: int
) -> None:
    """Records that an output is a function of a tensor, in vectors and where values fill none."""
    in_vectors, alone = tables
    count = source.height * source.row_bytes
    first = count // vector * vector
    channels = np.arange(first, count) % source.channels
    rest = alone[:, channels]
    if not first:
        lowering.derive(operator, source, alone, output)
    elif np.all(rest == in_vectors[:, channels]):
        lowering.derive(operator, source, in_vectors, output)
    else:
        lowering.add(_with_rest(_function_step(source, in_vectors, output), rest, first))


def _with_rest(step: Step, rest: np.ndarray, first: int) -> Step:
    """A step on all values, of which those from `first` on have their own results, `(256, rest)`."""
    fields: dict[str, Field] = {
        "kernel": step.kernel,
        "params": step.params,
        "rest": Array("int8_t", rest.T.ravel(), f"{step.output.name}/rest"),
        "in_vectors": first,
        "values": step.output.row_bytes,
    }
    params = Struct("kbnn_rest_params", fields, step.output.name)
    return dataclasses.replace(step, kernel="kbnn_with_rest", params=params)


@writes("LOGISTIC", "TANH")
def _squash(lowering: Lowering, operator: Operator) -> None:
    """A sigmoid or tanh, which TensorFlow Lite computes in single precision once, for all levels."""
    held = lowering.values.get(operator.operands[0].index) if operator.operands else None
    if isinstance(held, Function):
        raise refused(operator, "its input is float, because a layer before it has no int8 form")
    source, output = lowering.tensor(operator), lowering.output(operator)
    x = np.float32(source.scale) * (_LEVELS - source.zero_point).astype(np.float32)
    # Rounded from double precision, as the C library's functions are.
    exact = np.exp(-x.astype(np.float64)) if operator.name == "LOGISTIC" else np.tanh(x.astype(np.float64))
    values = exact.astype(np.float32)
    if operator.name == "LOGISTIC":
        values = np.float32(1) / (np.float32(1) + values)
    levels = integer.rounded(values * (np.float32(1) / np.float32(output.scale))) + output.zero_point
    lowering.derive(operator, source, np.repeat(integer.saturated(levels)[:, None], source.channels, axis=1), output)


@writes("MUL", "ADD", "SUB", "ELU", "RELU", "RELU6", "RELU_N1_TO_1", "MAXIMUM", "MINIMUM")
def _elementwise(lowering: Lowering, operator: Operator) -> None:
    constants = [item for item in operator.inputs if item is not None and item.data is not None]
    held = [lowering.values.get(item.index) for item in operator.operands]
    if operator.outputs[0].dtype == "float32" and (len(held) == 2 or isinstance(held[0], Normalizing)):
        lowering.values[operator.outputs[0].index] = _next_stage(operator, held, constants)
    elif len(operator.operands) == 1:
        value = lowering.of(operator, operator.inputs.index(operator.operands[0]), Function, Tensor)
        if isinstance(value, Function):
            _float_function(lowering, operator, value, constants)
        else:
            _int8_function(lowering, operator, value, constants)
    elif operator.name in ("ADD", "SUB"):
        _sum(lowering, operator)
    elif operator.name == "MUL":
        _multiply(lowering, operator)
    else:
        _extreme(lowering, operator)


# The stage that two intermediate values of a layer normalization lead to; `x` is the tensor itself in float.
_STAGES = {
    ("MUL", "mean", "mean"): "squared_mean",
    ("MUL", "x", "x"): "square",
    ("SUB", "mean_square", "squared_mean"): "variance",
    ("MUL", "mean", "factor"): "shift",
    ("MUL", "mean", "scale"): "shift",
    ("MUL", "x", "factor"): "scaled",
    ("MUL", "x", "scale"): "scaled",
    ("SUB", "scaled", "shift"): "normalized",
    ("ADD", "scaled", "offset"): "normalized",
}


def _stage(operator: Operator, value: Value | None) -> Normalizing:
    """A value as a stage of a layer normalization; the tensor itself is stage `x`."""
    if isinstance(value, Normalizing):
        return value
    if isinstance(value, Function) and isinstance(value.source, Tensor) and value.is_dequantized:
        return Normalizing("x", value.source)
    raise refused(operator, "it is supported only in a layer normalization, or with a constant per channel")


def _next_stage(operator: Operator, held: Sequence[Value | None], constants: list[flatbuffer.Tensor]) -> Normalizing:
    values = [_stage(operator, value) for value in held]
    first, channels = values[0], values[0].tensor.channels
    given = [np.asarray(item.value(), np.float32).reshape(-1) for item in constants]
    found: Normalizing | None = None
    if len(values) == 2 and values[1].tensor is first.tensor:
        stage = _STAGES.get((operator.name, first.stage, values[1].stage))
        known = [value for value in values if value.stage in ("factor", "scale", "scaled", "offset", "shift")]
        merged = [value for value in known if value.offset is not None] or known
        found = dataclasses.replace(merged[0] if merged else first, stage=stage) if stage else None
    elif len(given) == 1 and operator.name == "ADD" and first.stage == "variance" and len(given[0]) == 1:
        found = dataclasses.replace(first, stage="variance_and_epsilon", epsilon=float(given[0][0]))
    elif len(given) == 1 and operator.name == "MUL" and first.stage == "factor" and len(given[0]) == channels:
        found = dataclasses.replace(first, stage="scale", scale=given[0])
    elif len(given) == 1 and operator.name == "SUB" and first.stage == "shift" and operator.inputs[0] is constants[0]:
        found = dataclasses.replace(first, stage="offset", offset=np.broadcast_to(given[0], (channels,)))
    if found is None or operator.options.get("fusedActivationFunction"):
        raise refused(
            operator,
            "it combines float values, which has a form only in a layer normalization over height, width and channels "
            "together; combine three or more values in pairs, which are int8",
        )
    return found


@writes("RSQRT")
def _reciprocal_root(lowering: Lowering, operator: Operator) -> None:
    value = lowering.of(operator, 0, Normalizing)
    if value.stage != "variance_and_epsilon":
        raise refused(operator, "it is supported only in a layer normalization")
    lowering.values[operator.outputs[0].index] = dataclasses.replace(value, stage="factor")


def _float_mean(lowering: Lowering, operator: Operator) -> None:
    """Over height and width, then over channels."""
    value = _stage(operator, lowering.of(operator, 0, Function, Normalizing))
    axes = operator.inputs[1]
    over = [] if axes is None else sorted(np.atleast_1d(axes.value()).tolist())
    stages = {
        ("x", (1, 2)): "mean_of_pixels",
        ("square", (1, 2)): "mean_square_of_pixels",
        ("mean_of_pixels", (3,)): "mean",
        ("mean_square_of_pixels", (3,)): "mean_square",
    }
    stage = stages.get((value.stage, tuple(over)))
    if stage is None or not operator.options.get("keepDims"):
        raise refused(
            operator, "it is supported only in a layer normalization over height, width and channels together"
        )
    lowering.values[operator.outputs[0].index] = dataclasses.replace(value, stage=stage)


def _normalize(lowering: Lowering, operator: Operator, value: Normalizing) -> None:
    if value.stage != "normalized":
        raise refused(operator, "it ends an incomplete layer normalization")
    source, output = value.tensor, lowering.output(operator)
    if source.height * source.width * source.channels % 16:
        raise refused(
            operator, "a layer normalization is rounded differently if its number of values is not a multiple of 16"
        )
    moments = Tensor(f"{output.name}/moments", 1, 2, source.channels, "float")
    step = np.float32(source.scale)
    fields: dict[str, Field] = {
        "scale": 0 if value.scale is None else Array("float", value.scale, f"{output.name}/scale"),
        "offset": 0 if value.offset is None else Array("float", value.offset, f"{output.name}/offset"),
        "step": float_literal(step),
        "zero": float_literal(step * np.float32(source.zero_point)),
        "epsilon": float_literal(value.epsilon),
        "out_inverse": float_literal(float(np.float32(1) / np.float32(output.scale))),
        "height": source.height,
        "width": source.width,
        "channels": source.channels,
        "out_zero": output.zero_point,
    }
    params = Struct("kbnn_normalize_params", fields, output.name)
    whole = Window(source.height, source.height, 0)
    lowering.add(Step("kbnn_moments", params, (source,), (whole,), moments))
    every = Window(0, 1, 0)
    lowering.add(Step("kbnn_normalize", params, (source, moments), (_ELEMENTWISE, every), output))


def float_literal(value: float | np.float32) -> str:
    """A float constant of C, exactly."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def _float_function(
    lowering: Lowering, operator: Operator, value: Function, constants: list[flatbuffer.Tensor]
) -> None:
    """A float operator between DEQUANTIZE and QUANTIZE, computed for each level and channel."""
    given = [np.asarray(item.value(), np.float32).reshape(-1) for item in constants]
    order = [value.tables if item.data is None else given[0] for item in operator.inputs if item is not None]
    if not all(_is_per_channel(item, value.tables.shape[-1]) for item in constants):
        raise refused(operator, "its constant is not one per channel")
    low, high = _fused_activation(operator)
    results = _FLOAT_FUNCTIONS[operator.name](*order).astype(np.float32)
    tables = np.clip(results, np.float32(low), np.float32(high))
    lowering.values[operator.outputs[0].index] = Function(value.source, value.levels, tables)


def _elu(x: np.ndarray) -> np.ndarray:
    """Rounded from double precision, as the C library's expm1f is."""
    return np.where(x < 0, np.expm1(np.minimum(x, 0).astype(np.float64)), x)


_FLOAT_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "MUL": np.multiply,
    "ADD": np.add,
    "SUB": np.subtract,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
    "ELU": _elu,
    **{
        name: lambda x, bounds=bounds: np.clip(x, np.float32(bounds[0]), np.float32(bounds[1]))
        for name, bounds in _RECTIFIERS.items()
    },
}


def _int8_function(lowering: Lowering, operator: Operator, value: Tensor, constants: list[flatbuffer.Tensor]) -> None:
    """A constant added to, or multiplied with, an int8 tensor by channel, or its values in a range."""
    output = lowering.output(operator)
    if operator.name in _RECTIFIERS:
        results = integer.rescaled(_LEVELS - value.zero_point, *_float_multiplier((value.scale,), output.scale))
        table = integer.saturated(results + output.zero_point, *_levels_between(output, *_RECTIFIERS[operator.name]))
        lowering.derive(operator, value, np.repeat(table[:, None], value.channels, axis=1), output)
        return
    if operator.name not in ("ADD", "MUL", "MAXIMUM", "MINIMUM") or len(constants) != 1 or constants[0].dtype != "int8":
        raise refused(operator, "it is supported for two computed values, or for one and a constant per channel")
    if not _is_per_channel(constants[0], value.channels):
        raise refused(operator, "its constant is not one per channel")
    constant = constants[0].value().reshape(-1).astype(np.int64)
    scale, zero_point = _quantization(operator, constants[0])
    if operator.name in _EXTREMES:
        if any(pair != _levels_of(output) for pair in ((scale, zero_point), _levels_of(value))):
            raise refused(operator, "its two values have different scales")
        table = _EXTREMES[operator.name](np.repeat(_LEVELS[:, None], value.channels, axis=1), constant)
        lowering.derive(operator, value, table.astype(np.int8), output)
        return
    x = np.repeat(_LEVELS[:, None], value.channels, axis=1) - value.zero_point
    if operator.name == "ADD":
        results = _added_constant(
            value, x, constant - zero_point, _sum_multipliers(operator, value.scale, scale, output.scale)
        )
    else:
        multiplier = _float_multiplier((value.scale, scale), output.scale)
        results = np.stack([integer.rescaled(x * (constant - zero_point), *multiplier)] * 2)
    tables = integer.saturated(results + output.zero_point, *_clipping(operator, output))
    _derive_in_vectors(lowering, operator, value, tables, output, _BROADCAST_VECTOR)


_EXTREMES: dict[str, Callable[..., np.ndarray]] = {"MAXIMUM": np.maximum, "MINIMUM": np.minimum}


def _levels_of(tensor: Tensor) -> tuple[float, int]:
    return tensor.scale, tensor.zero_point


def _is_per_channel(item: flatbuffer.Tensor, channels: int) -> bool:
    """Whether a constant is one value, or one value per channel in the last axis."""
    size = math.prod(item.shape)
    return size == 1 or (size == channels and item.shape[-1] == channels)


def _added_constant(value: Tensor, x: np.ndarray, constant: np.ndarray, multipliers: _Multipliers) -> np.ndarray:
    """The sums for each level and channel, `(2, levels, C)`: in vectors, and where values fill none."""
    alone = _added(x, constant, multipliers, integer.term_alone)
    if len(constant) == 1:
        return np.stack([_added(x, constant, multipliers, integer.term_of_broadcast), alone])
    # Each pixel's channels go into vectors of their own.
    vectors = _added(x, constant, multipliers, integer.term_in_vector)
    in_vectors = np.arange(value.channels) < value.channels // _INT8_VECTOR * _INT8_VECTOR
    return np.stack([np.where(in_vectors, vectors, alone)] * 2)


def _extreme(lowering: Lowering, operator: Operator) -> None:
    """The larger or smaller of two values; two functions of one tensor, as in max(x, slope·x), are a function of it."""
    values = [lowering.of(operator, k, Tensor, Derived) for k in (0, 1)]
    sources = [value.source if isinstance(value, Derived) else value for value in values]
    held = [value.tensor if isinstance(value, Derived) else value for value in values]
    output = lowering.output(operator)
    if any(_levels_of(tensor) != _levels_of(output) for tensor in held):
        raise refused(operator, "its two values have different scales")
    if sources[0] is sources[1]:
        levels = np.repeat(_LEVELS[:, None], sources[0].channels, axis=1).astype(np.int8)
        tables = [value.table if isinstance(value, Derived) else levels for value in values]
        lowering.derive(operator, sources[0], _EXTREMES[operator.name](*tables), output)
        return
    a, b = lowering.tensor(operator, 0), lowering.tensor(operator, 1)
    if not _shape_of(a) == _shape_of(b) == _shape_of(output):
        raise refused(operator, "its two values have different shapes")
    params = Struct("kbnn_extreme_params", {"values": output.row_bytes}, output.name)
    kernel = f"kbnn_{operator.name.lower()}"
    lowering.add(Step(kernel, params, (a, b), (_ELEMENTWISE, _ELEMENTWISE), output))


def _multiply(lowering: Lowering, operator: Operator) -> None:
    """The product of two computed values, one of which may have a single row, column or channel."""
    values, output = [lowering.tensor(operator, k) for k in (0, 1)], lowering.output(operator)
    shape = _shape_of(output)
    a, b = values if _shape_of(values[0]) == shape else reversed(values)
    if _shape_of(a) != shape or any(mine not in (1, size) for mine, size in zip(_shape_of(b), shape, strict=True)):
        raise refused(operator, "its two values have shapes of which neither is that of the product")
    multiplier, shift = _float_multiplier((values[0].scale, values[1].scale), output.scale)
    if 255 * 255 << max(shift, 0) >= 2**31:
        raise refused(operator, "its products do not fit 32 bits")
    low, high = _clipping(operator, output)
    fields: dict[str, Field] = {
        "multiplier": multiplier,
        "a_zero": a.zero_point,
        "b_zero": b.zero_point,
        "out_zero": output.zero_point,
        "width": a.width,
        "channels": a.channels,
        "b_column": b.channels if b.width > 1 else 0,
        "b_channel": int(b.channels > 1),
        "b_row": int(b.height > 1),
        "shift": shift,
        "low": low,
        "high": high,
    }
    windows = (_ELEMENTWISE, _ELEMENTWISE if _shape_of(b) == shape else Window() if b.height > 1 else Window(0, 1, 0))
    lowering.add(Step("kbnn_multiply", Struct("kbnn_multiply_params", fields, output.name), (a, b), windows, output))


def _shape_of(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.height, tensor.width, tensor.channels


def _float_multiplier(factors: Sequence[float], divisor: float) -> tuple[int, int]:
    """The multiplier of operators that compute it in single precision; others use double precision."""
    return integer.quantized_multiplier(
        float(np.prod(np.array(factors, np.float32), dtype=np.float32) / np.float32(divisor))
    )


def _product(*scales: float) -> np.float64:
    return np.prod([np.float64(np.float32(scale)) for scale in scales])


def _write_function(
    lowering: Lowering, operator: Operator, value: Function, tables: np.ndarray, output: Tensor
) -> None:
    if isinstance(value.source, Tensor):
        _derive_in_vectors(lowering, operator, value.source, tables, output, _FLOAT_VECTOR)
        return
    count = output.height * output.row_bytes
    if count % _FLOAT_VECTOR and np.any(tables[0] != tables[1]):
        raise refused(
            operator, f"its {count} values are not a multiple of 8, and the last ones are rounded differently"
        )
    _write_sums(lowering, value.source, tables[0], output)


def _function_step(source: Tensor, table: np.ndarray, output: Tensor) -> Step:
    """An int8 function of an int8 value, `(256, C)`, as one line per channel, two that meet at zero, or a table."""
    line = integer.fit(_LEVELS, table, int(table.min()), int(table.max()))
    if line is not None:
        return _affine_step(source, output, line, line, integer.LOW, source.channels)
    has_two = integer.LOW < source.zero_point <= integer.HIGH
    step = _two_lines(source, table, output) if has_two else None
    return step or _table_step(source, table, output)


def _affine_step(
    source: Tensor, output: Tensor, below: integer.Line, above: integer.Line, split: int, above_channels: int
) -> Step:
    fields: dict[str, Field] = {
        "below": _channels(f"{output.name}/below", below.multiplier, below.offset),
        "above": _channels(f"{output.name}/above", above.multiplier, above.offset),
        "width": source.width,
        "channels": source.channels,
        "above_channels": above_channels,
        "split": split,
        "shift": below.shift,
        "low": below.low,
        "high": below.high,
    }
    if below is above:
        fields["below"] = fields["above"]
    params = Struct("kbnn_affine_params", fields, output.name)
    return Step("kbnn_affine", params, (source,), (_ELEMENTWISE,), output)


def _channels(name: str, multiplier: np.ndarray, offset: np.ndarray) -> Array:
    return Array("kbnn_channel", np.stack([multiplier, offset], axis=1), name)


def _table_step(source: Tensor, table: np.ndarray, output: Tensor) -> Step:
    """A table per channel, or one for all channels if they agree."""
    tables = table[:, :1] if np.all(table == table[:, :1]) else table
    fields: dict[str, Field] = {
        "table": Array("int8_t", tables.T.ravel(), f"{output.name}/table"),
        "width": source.width,
        "channels": source.channels,
        "tables": tables.shape[1],
    }
    params = Struct("kbnn_table_params", fields, output.name)
    return Step("kbnn_table", params, (source,), (_ELEMENTWISE,), output)


@writes("PRELU")
def _prelu(lowering: Lowering, operator: Operator) -> None:
    source, output = lowering.tensor(operator), lowering.output(operator)
    slopes = operator.inputs[1]
    if slopes is None or slopes.data is None or len(slopes.value().reshape(-1)) not in (1, source.channels):
        raise refused(operator, "its slopes are not one per channel")
    scale, zero_point = _quantization(operator, slopes)
    slope = np.broadcast_to(slopes.value().reshape(-1).astype(np.int64) - zero_point, (source.channels,))
    x = (_LEVELS - source.zero_point)[:, None]
    positive = _float_multiplier((source.scale,), output.scale)
    negative = _float_multiplier((source.scale, scale), output.scale)
    results = np.where(x >= 0, integer.rescaled(x, *positive), integer.rescaled(x * slope, *negative))
    table = integer.saturated(results + output.zero_point)
    lowering.derive(operator, source, table, output, _prelu_step(source, output, slope, (positive, negative)))


def _prelu_step(
    source: Tensor, output: Tensor, slope: np.ndarray, multipliers: Sequence[tuple[int, int]]
) -> Step | None:
    """A PReLU in its own arithmetic, which takes a byte per channel."""
    (_, positive), (_, negative) = multipliers
    # Values are at most 255, slopes 127, and zero points are shifted by the right shifts.
    if np.any(slope != slope.astype(np.int8)) or not (-22 <= positive <= 20 and -22 <= negative <= -1):
        return None
    fields: dict[str, Field] = {
        "slopes": Array("int8_t", slope, f"{output.name}/slopes"),
        "multiplier": Array("", np.array([multiplier for multiplier, _ in multipliers]), ""),
        "width": source.width,
        "channels": source.channels,
        "exponent": Array("", np.array([shift for _, shift in multipliers]), ""),
        "zero": source.zero_point,
        "out_zero": output.zero_point,
    }
    params = Struct("kbnn_prelu_params", fields, output.name)
    return Step("kbnn_prelu", params, (source,), (_ELEMENTWISE,), output)


@writes("LEAKY_RELU")
def _leaky_relu(lowering: Lowering, operator: Operator) -> None:
    source, output = lowering.tensor(operator), lowering.output(operator)
    x = (_LEVELS - source.zero_point)[:, None]
    positive = _float_multiplier((source.scale,), output.scale)
    negative = _float_multiplier((source.scale, float(operator.options["alpha"])), output.scale)
    results = np.where(x >= 0, integer.rescaled(x, *positive), integer.rescaled(x, *negative))
    table = integer.saturated(results + output.zero_point)
    lowering.derive(operator, source, np.repeat(table, source.channels, axis=1), output)


def _two_lines(source: Tensor, table: np.ndarray, output: Tensor) -> Step | None:
    """One line per channel below zero, and one for all channels above."""
    split = source.zero_point - integer.LOW
    if np.any(table[split:] != table[split:, :1]):
        return None
    below, above = integer.fit(_LEVELS[:split], table[:split]), integer.fit(_LEVELS[split:], table[split:, :1])
    if below is None or above is None:
        return None
    for shift in range(min(below.shift, above.shift), 7, -1):
        pair = [integer.with_shift(line, shift) for line in (below, above)]
        done = np.concatenate(
            [pair[0](_LEVELS[:split, None]), np.broadcast_to(pair[1](_LEVELS[split:, None]), table[split:].shape)]
        )
        if np.array_equal(done, table):
            return _affine_step(source, output, pair[0], pair[1], source.zero_point, 1)
    return None


# ---- Binary convolutions --------------------------------------------------------------------------------------------


@writes("LceQuantize")
def _signs(lowering: Lowering, operator: Operator) -> None:
    value = lowering.of(operator, 0, Tensor, Derived)
    signs = _signs_of_source(value) if isinstance(value, Derived) else None
    lowering.values[operator.outputs[0].index] = signs or Signs(lowering.tensor(operator))


def _signs_of_source(value: Derived) -> Signs | None:
    """The signs of a function of a tensor, if each channel has those of the tensor, or +1 for all values.

    That is so for max(x, slope·x), whose slopes are 1, or 0 where the network has a PReLU with a slope of 0 or less.
    """
    negative = value.table < value.tensor.zero_point
    own = (value.source.zero_point > _LEVELS)[:, None]
    same = np.all(negative == own, axis=0)
    return Signs(value.source, same) if np.all(same | ~negative.any(0)) else None


@writes("LceBconv2d")
def _binary_convolution(lowering: Lowering, operator: Operator) -> None:
    bits = lowering.of(operator, 0, Signs, Tensor)
    kernel = operator.inputs[1]
    if kernel is None or kernel.data is None or len(kernel.shape) != 4:
        raise refused(operator, "its kernel is not a constant")
    source = bits.tensor if isinstance(bits, Signs) else bits
    channels = operator.options.get("channels_in", source.channels)
    groups = max(1, words_of(channels) // kernel.shape[3])
    largest = math.prod(kernel.shape[1:3]) * channels // groups
    accumulator = Accumulator(operator, bits, largest)
    if operator.outputs[0].dtype == "int32":
        output = dataclasses.replace(lowering.output(operator, kind="bits"), channels=kernel.shape[0])
        lowering.values[operator.outputs[0].index] = output
        _write_thresholds(lowering, accumulator, output)
        return
    levels = np.arange(largest + 1)
    table = _float_sums(operator, levels, largest)
    function = Function(accumulator, levels, np.stack([table, table]))
    if operator.outputs[0].dtype == "int8":
        output = lowering.output(operator)
        _write_sums(lowering, accumulator, integer.saturated(integer.rounded(table)), output)
    else:
        lowering.values[operator.outputs[0].index] = function


def _float_sums(operator: Operator, levels: np.ndarray, largest: int) -> np.ndarray:
    """LCE's float result for each count of differing bits, computed as LCE does: `(levels, C)`."""
    output = operator.outputs[0]
    scale, zero_point = (np.float64(np.float32(output.scales[0])), output.zero_points[0]) if output.scales else (1.0, 0)
    multiplier, bias = (_float64(operator, k) for k in (2, 3))
    slope = (-multiplier / scale).astype(np.float32)
    offset = ((bias + largest * multiplier) / scale + zero_point).astype(np.float32)
    # The activation applies to the sum of signs, largest - 2·level.
    low, high = _fused_activation(operator, "fused_activation_function")
    doubled = np.clip(2 * levels[:, None], largest - min(high, largest), largest - max(low, -largest))
    return doubled.astype(np.float32) * slope + offset


def _float64(operator: Operator, number: int) -> np.ndarray:
    item = operator.inputs[number]
    if item is None or item.dtype != "float32":
        raise refused(operator, "its multiplier or bias is missing")
    return item.value().astype(np.float64)


def _write_sums(lowering: Lowering, accumulator: Accumulator, table: np.ndarray, output: Tensor) -> None:
    """Adds a binary convolution that writes int8. `table` holds the result per count of differing bits and filter."""
    levels = np.arange(accumulator.largest + 1)
    is_limited = bool(accumulator.operator.options.get("fused_activation_function"))
    if is_limited:
        levels = _varying(table)
    write, params = _scaling(accumulator.operator, levels, table[levels], output)
    if is_limited:
        fields: dict[str, Field] = {"write": write, "output": params, "low": int(levels[0]), "high": int(levels[-1])}
        write, params = "kbnn_write_limited", Struct("kbnn_limited", fields, f"{output.name}/limited")
    _bconv_step(lowering, accumulator, output, write, params)


def _varying(table: np.ndarray) -> np.ndarray:
    """The rows of a table without those that repeat the first or the last one."""
    changes = np.flatnonzero(np.any(table[1:] != table[:-1], axis=1))
    return np.arange(changes[0], changes[-1] + 2) if len(changes) else np.arange(1)


def _scaling(operator: Operator, levels: np.ndarray, table: np.ndarray, output: Tensor) -> tuple[str, Struct]:
    """The function that writes results, one row of the table per level, and its parameters."""
    short = integer.fit_short(levels, table)
    line = integer.fit(levels, table) if short is None else None
    name = f"{output.name}/channels"
    fields: dict[str, Field]
    if short is not None:
        halves = np.stack([short.multiplier, short.offset], axis=1)
        places = short.exceptions.astype(np.uint32)
        places[:, 0] += np.uint32(levels[0])
        exceptions = (
            places[:, 1] << np.uint32(17) | places[:, 0] << np.uint32(1) | np.uint32(short.exceptions[:, 2] > 0)
        )
        fields = {
            "channels": Array("uint32_t", np.concatenate([_int16_words(halves), exceptions]), name),
            "centre": short.centre,
            "shift": short.shift,
            "fraction": short.fraction,
            "exceptions": len(exceptions),
        }
        return "kbnn_write_short", Struct("kbnn_short", fields, f"{output.name}/output")
    if line is not None:
        fields = {"channels": _channels(name, line.multiplier, line.offset), "shift": line.shift}
        return "kbnn_write_int8", Struct("kbnn_scaled", fields, f"{output.name}/output")
    return "kbnn_write_wide", _wide(operator, levels, table, output)


def _wide(operator: Operator, levels: np.ndarray, table: np.ndarray, output: Tensor) -> Struct:
    """The parameters of results that need 64-bit arithmetic, or deviate from a line in a few places."""
    found = integer.fit_wide(levels, table)
    if found is None or len(found[1]) > _MOST_EXCEPTIONS * table.shape[1]:
        raise refused(operator, "its results do not follow a line in 64-bit arithmetic")
    line, wrong = found
    wrong = wrong[np.lexsort((wrong[:, 0], wrong[:, 1]))]
    # The list ends with a filter number that does not exist.
    rows = [(c, levels[x], table[x, c]) for x, c in wrong.tolist()] + [(_LARGEST_SIZE, 0, 0)]
    fields: dict[str, Field] = {
        "channels": _channels(f"{output.name}/channels", line.multiplier, line.offset),
        "exceptions": Array("kbnn_exception", np.array(rows), f"{output.name}/exceptions"),
        "shift": line.shift,
        "left": line.left,
        "low": line.low,
        "high": line.high,
    }
    return Struct("kbnn_wide", fields, f"{output.name}/output")


def _write_thresholds(lowering: Lowering, accumulator: Accumulator, output: Tensor) -> None:
    item = accumulator.operator.inputs[4]
    if item is None:
        raise refused(accumulator.operator, "its thresholds are missing")
    # In LCE the output is -1 if the count is above the threshold.
    limits = np.clip(item.value().astype(np.int64) + 1, 0, min(accumulator.largest + 1, _LARGEST_SIZE))
    _bconv_step(lowering, accumulator, output, "kbnn_write_bits", Array("uint16_t", limits, f"{output.name}/limits"))


def _bconv_step(
    lowering: Lowering, accumulator: Accumulator, output: Tensor, write: str, params: "Struct | Array"
) -> None:
    operator, bits = accumulator.operator, accumulator.bits
    source = bits.tensor if isinstance(bits, Signs) else bits
    kernel = operator.inputs[1].value() if operator.inputs[1] is not None else np.zeros((0, 0, 0, 0), np.int32)
    filters, height, width, _ = kernel.shape
    channels = operator.options.get("channels_in", source.channels)
    if accumulator.largest >= _LARGEST_SIZE:
        raise refused(operator, f"its sums reach {accumulator.largest}")
    geometry = _Geometry.of(operator, source, (height, width), (1, output.height, output.width, filters))
    if geometry.is_padded and operator.options.get("pad_values", 0) != 1:
        raise refused(operator, "it pads with zeros, which are not signs: pad with ones (pad_values=1.0)")
    in_pairs = channels <= 16 and (height, width) == (3, 3) and geometry.strides[1] <= _LONGEST_PAIR_STRIDE
    weights = _half_filters(kernel) if in_pairs else _packed_filters(kernel, channels)
    patch_words = 9 if in_pairs else weights.shape[1]
    ring_words = geometry.padded_width(source.width, output.width) * words_of(channels)
    shape = _bconv_shape(write, source, output, geometry, kernel, channels, patch_words, in_pairs)
    mask = bits.mask if isinstance(bits, Signs) else None
    masked = mask is not None and not mask.all()
    fields: dict[str, Field] = {
        "shape": shape,
        "weights": Array(str(weights.dtype) + "_t", weights.ravel(), f"{output.name}/weights"),
        "output": params,
        "zero": source.zero_point,
    }
    if mask is not None and masked:
        padded = np.pad(mask, (0, -len(mask) % 32)).astype(np.uint32).reshape(-1, 32)
        words_of_mask = (padded << np.arange(32, dtype=np.uint32)).sum(1, dtype=np.uint32)
        fields = {f"bconv.{key}": item for key, item in fields.items()}
        fields["mask"] = Array("uint32_t", words_of_mask, f"{output.name}/mask")
    lowering.add(
        Step(
            "kbnn_bconv_masked"
            if masked
            else "kbnn_bconv_of_int8"
            if isinstance(bits, Signs)
            else "kbnn_bconv_of_bits",
            Struct("kbnn_masked_params" if masked else "kbnn_bconv_params", fields, output.name),
            (source,),
            (geometry.window(buffered=True),),
            output,
            scratch=4 * (geometry.extent * ring_words + patch_words + filters * (1 + in_pairs)),
            binary_macs=output.height * output.width * filters * accumulator.largest,
        )
    )


def _bconv_shape(
    write: str,
    source: Tensor,
    output: Tensor,
    geometry: _Geometry,
    kernel: np.ndarray,
    channels: int,
    patch_words: int,
    in_pairs: bool,
) -> Struct:
    """The part of a binary convolution's parameters that layers of one shape share."""
    filters, height, width, own = kernel.shape
    words = words_of(channels)
    in_rows = channels > 16 and words == own and geometry.dilations == (1, 1)
    fields: dict[str, Field] = {
        "gather": f"kbnn_gather_{'pair' if in_pairs else 'rows' if in_rows else 'any'}",
        "count": f"kbnn_count_{'pairs' if in_pairs else patch_words if patch_words in (3, 6, 9, 18) else 'any'}",
        "write": write,
        "height": source.height,
        "width": source.width,
        "channels": channels,
        "words": words,
        "groups": words // own,
        "patch_words": patch_words,
        "filters": filters,
        "out_width": output.width,
        "pixel_bytes": filters if output.kind == "int8" else 4 * words_of(filters),
        "ring_width": geometry.padded_width(source.width, output.width),
        "kernel_height": height,
        "kernel_width": width,
        **geometry.fields,
        "dilation_y": geometry.dilations[0],
        "dilation_x": geometry.dilations[1],
        "pixels": 1 + in_pairs,
        "plain": 0,
    }
    return Struct("kbnn_bconv_shape", fields, f"shape_of_{output.height}x{output.width}x{filters}")


def _half_filters(kernel: np.ndarray) -> np.ndarray:
    """Filters `(F, 3, 3, 1)` of at most 16 channels: 9 half words as triples."""
    return _triples(kernel.view(np.uint32).reshape(len(kernel), 9)).astype(np.uint16)


def _packed_filters(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Filters `(F, kh, kw, words)` as rows of triples (a ^ b, b, b ^ c); pixels of 16 bits or less share words."""
    filters = len(kernel)
    words = kernel.view(np.uint32).reshape(filters, -1)
    if channels <= 16:
        words = np.pad(words, ((0, 0), (0, words.shape[1] % 2)))
        words = words[:, ::2] | (words[:, 1::2] << np.uint32(16))
    words = np.pad(words, ((0, 0), (0, -words.shape[1] % 3)))
    return _triples(words)


def _triples(words: np.ndarray) -> np.ndarray:
    """Replaces each (a, b, c) of a row by (a ^ b, b, b ^ c)."""
    triples = words.reshape(len(words), -1, 3)
    a, b, c = triples[..., 0], triples[..., 1], triples[..., 2]
    return np.stack([a ^ b, b, b ^ c], axis=-1).reshape(len(words), -1)


@writes("LceBMaxPool2d")
def _max_pool_of_bits(lowering: Lowering, operator: Operator) -> None:
    source = lowering.of(operator, 0, Tensor)
    made = dataclasses.replace(lowering.output(operator, kind="bits"), channels=source.channels)
    lowering.values[operator.outputs[0].index] = made
    options = operator.options
    size = (_option(options, "filter_height"), _option(options, "filter_width"))
    lowering.add(_pool_step("kbnn_max_pool_bits", operator, source, made, size, (integer.LOW, integer.HIGH)))


# ---- Real-valued operators ------------------------------------------------------------------------------------------


@writes("CONV_2D")
def _convolution(lowering: Lowering, operator: Operator) -> None:
    kernel, bias, scales = _weights(operator)
    count, height, width, own = kernel.shape
    source, geometry = _padded_source(lowering, operator, (height, width))
    output = lowering.output(operator)
    if own != source.channels or geometry.dilations != (1, 1):
        # TensorFlow Lite has an optimized kernel for dilation, but not for groups.
        up = count if own == source.channels else 0
        constants = _filters(operator, source, output, kernel, bias, scales)
        step = _grouped_step("kbnn_conv_grouped", operator, source, geometry, output, kernel, constants, up)
        lowering.add(step)
        return
    row_values = width * own
    # A patch takes whole words from each of its rows.
    row_words = -(-row_values // 2)
    in_groups = own % 4 == 0
    ring_words, phases = _ring(geometry, source, output, in_groups)
    patch = _in_pairs(kernel.reshape(count, height, row_values), row_words, in_groups)
    low, high = _clipping(operator, output)
    filters = _filters(operator, source, output, kernel, bias, scales)
    fast = (low, high) == (integer.LOW, integer.HIGH) and _fits_doubled(filters, source, kernel)
    patch = np.pad(patch, ((0, 0), (0, -patch.shape[1] % 16)))
    words = _int8_words(patch)
    patch_words = patch.shape[1] // 2
    if fast:
        filters = filters * [2, 1, -1]
    expanded = count * (patch_words + 4)
    small = fast and expanded <= _MOST_EXPANDED_WORDS and np.abs(filters[:, 0]).max() < 2**26
    fields: dict[str, Field] = {
        "weights": Array("uint32_t", _framed(words.reshape(count, -1), filters, small), f"{output.name}/weights"),
        "height": source.height,
        "width": source.width,
        "channels": own,
        "count": count,
        "patch_words": patch_words,
        "row_words": row_words,
        "ring_words": ring_words,
        "out_width": output.width,
        "zero": source.zero_point,
        "out_zero": output.zero_point,
        "low": low,
        "high": high,
        "kernel_height": height,
        **geometry.fields,
        "phases": phases,
    }
    scratch = height * ring_words * phases + 4 * patch_words + (expanded if small else 0)
    lowering.add(
        Step(
            "kbnn_conv" if small else "kbnn_conv_large" if fast else "kbnn_conv_any",
            Struct("kbnn_conv_params", fields, output.name),
            (source,),
            (geometry.window(buffered=True),),
            output,
            scratch=4 * scratch,
            real_macs=output.height * output.width * kernel.size,
        )
    )


def _ring(geometry: _Geometry, source: Tensor, output: Tensor, in_groups: bool) -> tuple[int, int]:
    """Words per buffered input row, and its number of copies: a second one, shifted by a value, for odd offsets."""
    values = geometry.padded_width(source.width, output.width) * source.channels
    if in_groups:
        return values // 2, 1
    odd = geometry.strides[1] * source.channels % 2 == 1
    return -(-values // 2) + 1, 2 if odd and output.width > 1 else 1


def _padded_source(lowering: Lowering, operator: Operator, kernel: tuple[int, int]) -> tuple[Tensor, _Geometry]:
    """A convolution's unpadded input, and its geometry including the zeros that a separate padding layer adds."""
    value = lowering.of(operator, 0, Tensor, Padded)
    image = value.tensor if isinstance(value, Padded) else value
    geometry = _Geometry.of(operator, image, kernel, operator.outputs[0].shape)
    if not isinstance(value, Padded):
        return value, geometry
    around = geometry.around(value.top, value.left)
    if max(around.padding) > _MOST_PADDING:
        return lowering.tensor(operator), geometry
    return value.source, around


@writes("DEPTHWISE_CONV_2D")
def _depthwise(lowering: Lowering, operator: Operator) -> None:
    kernel, bias, scales = _weights(operator, axis=-1)
    _, height, width, count = kernel.shape
    source, geometry = _padded_source(lowering, operator, (height, width))
    output = lowering.output(operator)
    filters = np.moveaxis(kernel[0], -1, 0)[..., None]
    constants = _filters(operator, source, output, filters, bias, scales)
    # TensorFlow Lite rounds vectors of 8 filters differently from the filters that fill none.
    up = count // 8 * 8
    lowering.add(_grouped_step("kbnn_depthwise", operator, source, geometry, output, filters, constants, up))


def _grouped_step(
    kernel: str,
    operator: Operator,
    source: Tensor,
    geometry: _Geometry,
    output: Tensor,
    filters: np.ndarray,
    constants: np.ndarray,
    up: int,
) -> Step:
    """A convolution whose filters `(F, kh, kw, own)` each read a group of channels; the first `up` round halves up."""
    count, height, width, own = filters.shape
    groups = source.channels // own
    if groups * own != source.channels or count % groups:
        raise refused(operator, f"it has {count} filters of {own} channels for {source.channels} channels")
    low, high = _clipping(operator, output)
    fields: dict[str, Field] = {
        "weights": Array("int8_t", filters.swapaxes(0, 1).ravel(), f"{output.name}/weights"),
        "filters": Array("kbnn_filter", constants, f"{output.name}/filters"),
        "height": source.height,
        "width": source.width,
        "channels": source.channels,
        "groups": groups,
        "own": own,
        "times": count // groups,
        "up": up,
        "out_width": output.width,
        "zero": source.zero_point,
        "out_zero": output.zero_point,
        "low": low,
        "high": high,
        "kernel_height": height,
        "kernel_width": width,
        **geometry.fields,
        "dilation_y": geometry.dilations[0],
        "dilation_x": geometry.dilations[1],
    }
    params = Struct("kbnn_grouped_params", fields, output.name)
    macs = output.height * output.width * filters.size
    return Step(kernel, params, (source,), (geometry.window(),), output, scratch=4 * count, real_macs=macs)


def _framed(words: np.ndarray, filters: np.ndarray, small: bool) -> np.ndarray:
    """The weights of each filter between its constants; small constants share a word."""
    first, last = (filters[:, :1] << 5 | filters[:, 2:], filters[:, 1:2]) if small else (filters[:, :1], filters[:, 1:])
    columns = [first.astype(np.int32).view(np.uint32), words, last.astype(np.int32).view(np.uint32)]
    return np.concatenate(columns, axis=1).ravel()


def _weights(operator: Operator, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel, bias and scales per filter of an int8 convolution or dense layer; `axis` is that of the filters."""
    kernel = operator.inputs[1]
    bias = operator.inputs[2] if len(operator.inputs) > 2 else None
    if kernel is None or kernel.data is None or kernel.dtype != "int8" or any(kernel.zero_points):
        raise refused(operator, "its kernel is not symmetric int8")
    filters = kernel.shape[axis]
    values = np.zeros(filters, np.int64) if bias is None else bias.value().astype(np.int64)
    if bias is not None and bias.dtype != "int32":
        raise refused(operator, "its bias is not int32")
    return kernel.value().astype(np.int64), values, np.broadcast_to(np.array(kernel.scales, np.float32), (filters,))


def _in_pairs(rows: np.ndarray, row_words: int, in_groups: bool) -> np.ndarray:
    """Weights `(F, kh, values)` in the order of the patch's half words; each row of a patch takes whole words."""
    filters, height, values = rows.shape
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 2 * row_words - values)))
    if in_groups:
        padded = padded.reshape(filters, height, -1, 4)[..., [0, 2, 1, 3]]
    return padded.reshape(filters, -1)


def _int16_words(patch: np.ndarray) -> np.ndarray:
    """Two weights per word."""
    halves = patch.astype(np.int16).view(np.uint16).astype(np.uint32).reshape(-1, 2)
    return halves[:, 0] | (halves[:, 1] << np.uint32(16))


def _int8_words(patch: np.ndarray) -> np.ndarray:
    """Four weights per word: bytes 0 and 2 are the first pair, 1 and 3 the second."""
    return _bytes_in_words(patch.reshape(-1, 4)[:, [0, 2, 1, 3]])


def _bytes_in_words(values: np.ndarray) -> np.ndarray:
    octets = values.astype(np.int8).view(np.uint8).astype(np.uint32).reshape(-1, 4)
    return (octets << np.array([0, 8, 16, 24], np.uint32)).sum(1, dtype=np.uint32)


def _reachable(source: Tensor, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest sum of each filter, including its bias."""
    lowest, highest = integer.LOW - source.zero_point, integer.HIGH - source.zero_point
    weights = kernel.reshape(len(kernel), -1)
    extremes = np.stack([weights * lowest, weights * highest])
    return extremes.min(0).sum(1) + bias, extremes.max(0).sum(1) + bias


@writes("FULLY_CONNECTED")
def _dense(lowering: Lowering, operator: Operator) -> None:
    source, output = lowering.tensor(operator), lowering.output(operator)
    kernel, bias, scales = _weights(operator)
    if kernel.shape[1] != source.channels or source.height * source.width != 1:
        raise refused(operator, f"it reads {source.height}x{source.width}x{source.channels} values at once")
    low, high = _clipping(operator, output)
    folded = bias - source.zero_point * kernel.sum(1)
    filters = _filters(operator, source, output, kernel, bias, scales)
    fields: dict[str, Field] = {
        "weights": Array("int8_t", kernel.ravel(), f"{output.name}/weights"),
        "filters": Array("kbnn_filter", np.concatenate([folded[:, None], filters[:, 1:]], 1), f"{output.name}/filters"),
        "inputs": source.channels,
        "outputs": len(kernel),
        "out_zero": output.zero_point,
        "low": low,
        "high": high,
    }
    params = Struct("kbnn_dense_params", fields, output.name)
    lowering.add(Step("kbnn_dense", params, (source,), (Window(),), output, real_macs=kernel.size))


def _filters(
    operator: Operator, source: Tensor, output: Tensor, kernel: np.ndarray, bias: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Bias, multiplier and shift of each filter, `(F, 3)`."""
    low, high = _reachable(source, kernel, bias)
    largest = max(-low.min(), high.max())
    out_scale = np.float64(np.float32(output.scale))
    rows = np.array([integer.quantized_multiplier(float(_product(source.scale, float(s)) / out_scale)) for s in scales])
    if int(largest) << max(int(rows[:, 1].max()), 0) >= 2**31:
        raise refused(operator, "its sums do not fit 32 bits")
    return np.concatenate([bias[:, None], rows], axis=1)


def _fits_doubled(filters: np.ndarray, source: Tensor, kernel: np.ndarray) -> bool:
    """Whether the fast kernels can compute a convolution: they double the sums and shift only to the right."""
    low, high = _reachable(source, kernel, filters[:, 0])
    return bool(max(-low.min(), high.max()) < 2**30 and filters[:, 2].max() <= 0 and filters[:, 2].min() > -23)


def _added(a: np.ndarray, b: np.ndarray, multipliers: _Multipliers, term: Callable[..., np.ndarray]) -> np.ndarray:
    """TensorFlow Lite's sum of two int8 values without zero points; `term` rescales each."""
    return integer.rescaled(term(a, *multipliers[0]) + term(b, *multipliers[1]), *multipliers[2])


def _sum_multipliers(operator: Operator, *scales: float) -> _Multipliers:
    """The multipliers for the scales of a, b and the output."""
    a, b, out = (np.float64(np.float32(scale)) for scale in scales)
    if max(a, b) > 64 * out:
        raise refused(operator, "its inputs have 64 times the range of its output, which overflows 16 bits")
    twice = 2.0 * max(a, b)
    return [integer.quantized_multiplier(float(real)) for real in (a / twice, b / twice, twice / (2.0**20 * out))]


def _sum(lowering: Lowering, operator: Operator) -> None:
    """The sum or difference of two values."""
    a, b, output = lowering.tensor(operator, 0), lowering.tensor(operator, 1), lowering.output(operator)
    if not a.height == b.height == output.height or not a.row_bytes == b.row_bytes == output.row_bytes:
        raise refused(operator, "its two values have different shapes")
    if operator.name == "SUB":
        b = _negated(lowering, b)
    clipping = _clipping(operator, output)
    multipliers = _sum_multipliers(operator, a.scale, b.scale, output.scale)
    levels = _LEVELS[:, None] - a.zero_point, _LEVELS[None, :] - b.zero_point
    vectors, alone = (
        integer.saturated(_added(*levels, multipliers, term) + output.zero_point, *clipping)
        for term in (integer.term_in_vector, integer.term_alone)
    )
    # TensorFlow Lite adds in vectors, but subtracts value by value.
    count = output.height * output.row_bytes
    in_vectors = 0 if operator.name == "SUB" else count // _INT8_VECTOR * _INT8_VECTOR
    is_split = 0 < in_vectors < count and np.any(vectors != alone)
    table = vectors if in_vectors else alone
    found = None if is_split else integer.fit_sum(table, a.scale / output.scale, b.scale / output.scale)
    if found is None:
        lowering.add(_exact_sum(a, b, output, multipliers, clipping, in_vectors))
        return
    fields: dict[str, Field] = {
        "a_multiplier": found.a_multiplier,
        "b_multiplier": found.b_multiplier,
        "offset": found.offset,
        "values": output.row_bytes,
        "shift": found.shift,
    }
    kernel = "kbnn_add_wide" if found.wide else "kbnn_add"
    params = Struct(f"{kernel}_params", fields, output.name)
    lowering.add(Step(kernel, params, (a, b), (_ELEMENTWISE, _ELEMENTWISE), output))


def _negated(lowering: Lowering, value: Tensor) -> Tensor:
    """A tensor with the opposite sign: all bits of values and zero point are inverted, so that none overflows."""
    negated = dataclasses.replace(value, name=f"{value.name}/negated", zero_point=~value.zero_point, memory="arena")
    table = np.repeat(~_LEVELS[:, None], value.channels, axis=1).astype(np.int8)
    lowering.add(_function_step(value, table, negated))
    return negated


def _exact_sum(
    a: Tensor, b: Tensor, output: Tensor, multipliers: _Multipliers, clipping: tuple[int, int], in_vectors: int
) -> Step:
    fields: dict[str, Field] = {
        "multiplier": Array("", np.array([multiplier for multiplier, _ in multipliers]), ""),
        "in_vectors": in_vectors,
        "shift": Array("", np.array([shift for _, shift in multipliers]), ""),
        "zero": Array("", np.array([a.zero_point, b.zero_point, output.zero_point]), ""),
        "values": output.row_bytes,
        "low": clipping[0],
        "high": clipping[1],
    }
    params = Struct("kbnn_add_exact_params", fields, output.name)
    return Step("kbnn_add_exact", params, (a, b), (_ELEMENTWISE, _ELEMENTWISE), output)


@writes("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(lowering: Lowering, operator: Operator) -> None:
    value, output = lowering.of(operator, 0, Tensor, Derived), lowering.output(operator)
    size = (_option(operator.options, "filterHeight"), _option(operator.options, "filterWidth"))
    kernel = "kbnn_average_pool" if operator.name == "AVERAGE_POOL_2D" else "kbnn_max_pool"
    pooled = value.tensor if isinstance(value, Derived) else value
    if _levels_of(pooled) != _levels_of(output):
        raise refused(operator, "its input and output have different scales")
    clipping = _clipping(operator, output)
    geometry = _Geometry.of(operator, pooled, size, (1, output.height, output.width, 0))
    is_plain = size == geometry.strides and not geometry.is_padded and clipping == (integer.LOW, integer.HIGH)
    is_fused = isinstance(value, Derived) and value.step is not None and kernel == "kbnn_average_pool" and is_plain
    if not isinstance(value, Derived) or value.step is None or not is_fused:
        lowering.add(_pool_step(kernel, operator, lowering.tensor(operator), output, size, clipping))
        return
    # The PReLU's result, which has more rows, is never stored.
    fields: dict[str, Field] = {
        "prelu": value.step.params,
        "out_width": output.width,
        "size_y": size[0],
        "size_x": size[1],
    }
    params = Struct("kbnn_prelu_pool_params", fields, output.name)
    lowering.add(Step("kbnn_average_pool_of_prelu", params, (value.source,), (geometry.window(),), output))


def _pool_step(
    kernel: str,
    operator: Operator,
    source: Tensor,
    output: Tensor,
    size: tuple[int, int],
    clipping: tuple[int, int],
) -> Step:
    geometry = _Geometry.of(operator, source, size, (1, output.height, output.width, 0))
    fields: dict[str, Field] = {
        "height": source.height,
        "width": source.width,
        "channels": source.channels if source.kind == "int8" else words_of(source.channels),
        "out_width": output.width,
        "size_y": size[0],
        "size_x": size[1],
        **geometry.fields,
        "low": clipping[0],
        "high": clipping[1],
    }
    return Step(kernel, Struct("kbnn_pool_params", fields, output.name), (source,), (geometry.window(),), output)


@writes("MEAN")
def _mean(lowering: Lowering, operator: Operator) -> None:
    if operator.outputs[0].dtype == "float32":
        _float_mean(lowering, operator)
        return
    source = lowering.tensor(operator)
    _check_over_pixels(operator)
    output = lowering.output(operator)
    count = source.height * source.width
    # TensorFlow Lite has an optimized kernel for means of images that keep their axes.
    is_kept = bool(operator.options.get("keepDims")) and len(operator.operands[0].shape) == 4
    scaling = _kept_mean if is_kept else _squeezed_mean
    multiplier, shift, offset, out_zero = scaling(source, output, count)
    if 255 * count << max(shift, 0) >= 2**31:
        raise refused(operator, f"the sum of {count} values does not fit 32 bits")
    fields: dict[str, Field] = {
        "multiplier": multiplier,
        "offset": offset,
        "out_zero": out_zero,
        "height": source.height,
        "width": source.width,
        "channels": source.channels,
        # The optimized kernel rounds halves up in vectors of 16 channels.
        "up": source.channels // 16 * 16 if is_kept else 0,
        "shift": shift,
    }
    window = Window(source.height, source.height, 0)
    lowering.add(Step("kbnn_mean", Struct("kbnn_mean_params", fields, output.name), (source,), (window,), output))


@writes("REDUCE_MAX")
def _largest(lowering: Lowering, operator: Operator) -> None:
    """The largest value of each channel: max-pooling over the whole image."""
    source, output = lowering.tensor(operator), lowering.output(operator)
    _check_over_pixels(operator)
    if _levels_of(source) != _levels_of(output):
        raise refused(operator, "its input and output have different scales")
    size = (source.height, source.width)
    lowering.add(_pool_step("kbnn_max_pool", operator, source, output, size, (integer.LOW, integer.HIGH)))


def _check_over_pixels(operator: Operator) -> None:
    """Refuses means and maxima that are not over all axes but batch and channels."""
    rank = len(operator.operands[0].shape)
    axes = operator.inputs[1]
    over = [] if axes is None else sorted(axis % rank for axis in np.atleast_1d(axes.value()).tolist())
    if over != list(range(1, rank - 1)):
        raise refused(operator, "it is supported over height and width, or over the length of a signal, only")


def _squeezed_mean(source: Tensor, output: Tensor, count: int) -> tuple[int, int, int, int]:
    """Multiplier, shift, offset of the sum and of the result: the multiplier is divided by the count in 32 bits."""
    real = np.float64(np.float32(source.scale)) / np.float64(np.float32(output.scale))
    multiplier, shift = integer.quantized_multiplier(float(real))
    spare = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << spare) // count, shift - spare, -source.zero_point * count, output.zero_point


def _kept_mean(source: Tensor, output: Tensor, count: int) -> tuple[int, int, int, int]:
    """The constants of `_squeezed_mean` for the optimized kernel: single precision, with one offset of the result."""
    in_scale, out_scale = np.float32(source.scale), np.float32(output.scale)
    moved = np.float32(source.zero_point) * in_scale / out_scale
    offset = output.zero_point - int(moved + np.copysign(np.float32(0.5), moved))
    multiplier, shift = integer.quantized_multiplier(float(in_scale / (np.float32(count) * out_scale)))
    return multiplier, shift, 0, offset


@writes("SOFTMAX")
def _softmax(lowering: Lowering, operator: Operator) -> None:
    """exp(x) / sum(exp(x)) over channels, from a table of exp(-k·scale) for the distance k to the largest value."""
    source, output = lowering.tensor(operator), lowering.output(operator)
    if _shape_of(source) != _shape_of(output):
        raise refused(operator, "its input and output have different shapes")
    step = np.float32(source.scale) * np.float32(operator.options.get("beta") or 1.0)
    exponents = -step * np.arange(256, dtype=np.float32)
    powers = np.exp(exponents.astype(np.float64)).astype(np.float32)
    fields: dict[str, Field] = {
        "powers": Array("float", powers, f"{output.name}/powers"),
        "out_scale": float_literal(output.scale),
        "width": output.width,
        "channels": output.channels,
        "out_zero": output.zero_point,
    }
    params = Struct("kbnn_softmax_params", fields, output.name)
    lowering.add(Step("kbnn_softmax", params, (source,), (Window(),), output))


# ---- Operators that move values --------------------------------------------------------------------------------------


@writes("CONCATENATION")
def _concatenation(lowering: Lowering, operator: Operator) -> None:
    values = [lowering.tensor(operator, k) for k in range(len(operator.inputs))]
    output = lowering.output(operator)
    if len(values) < 2:
        raise refused(operator, "it joins a single value")
    if not _is_last_axis(operator, int(operator.options.get("axis") or 0)):
        raise refused(operator, "it is supported along channels only")
    if any(_levels_of(tensor) != _levels_of(output) for tensor in values):
        raise refused(operator, "its inputs have different scales")
    whole = values[0]
    for k, value in enumerate(values[1:], 2):
        channels = whole.channels + value.channels
        name = f"{output.name}/{k}"
        made = output if k == len(values) else dataclasses.replace(whole, name=name, channels=channels, memory="arena")
        lowering.add(_channels_step((whole, value), np.arange(channels), made))
        whole = made


def _is_last_axis(operator: Operator, axis: int) -> bool:
    return axis in (-1, len(operator.outputs[0].shape) - 1)


def _channels_step(inputs: tuple[Tensor, ...], source: np.ndarray, output: Tensor, constant: int | None = None) -> Step:
    fields: dict[str, Field] = {
        "source": Array("int16_t", source, f"{output.name}/source"),
        "width": output.width,
        "channels0": inputs[0].channels,
        "channels1": inputs[-1].channels if len(inputs) > 1 else 0,
        "channels": output.channels,
        "constant": output.zero_point if constant is None else constant,
    }
    params = Struct("kbnn_channels_params", fields, output.name)
    return Step("kbnn_channels", params, inputs, tuple(Window() for _ in inputs), output)


@writes("PAD", "PADV2")
def _pad(lowering: Lowering, operator: Operator) -> None:
    """A border of the zero point, or with PADV2 of any value, around the image, and channels of it."""
    source, output = lowering.tensor(operator), lowering.output(operator)
    sides = operator.inputs[1]
    if sides is None or sides.data is None or sides.shape != (4, 2):
        raise refused(operator, "its sides are not constants for an image")
    (batch, rows, columns, channels) = sides.value().tolist()
    if any(batch) or _levels_of(source) != _levels_of(output):
        raise refused(operator, "it pads the batch, or its input and output have different scales")
    value = source.zero_point
    if operator.name == "PADV2":
        constant = operator.inputs[2]
        if constant is None or constant.dtype != "int8" or _quantization(operator, constant) != _levels_of(source):
            raise refused(operator, "its value is not a constant with the scale of its input")
        value = int(constant.value().reshape(-1)[0])
    if any(channels):
        order = np.concatenate([np.full(channels[0], -1), np.arange(source.channels), np.full(channels[1], -1)])
        wide = (
            output
            if not any(rows + columns)
            else dataclasses.replace(source, name=f"{output.name}/channels", channels=len(order), memory="arena")
        )
        lowering.add(_channels_step((source,), order, wide, value))
        source = wide
    if any(rows + columns) or not any(channels):
        step = _border_step(source, output, rows[0], columns, value)
        is_zero = value == source.zero_point
        held = Padded(source, rows[0], columns[0], output, step) if is_zero else output
        lowering.values[operator.outputs[0].index] = held
        if not is_zero:
            lowering.add(step)


def _border_step(source: Tensor, output: Tensor, top: int, columns: Sequence[int], value: int) -> Step:
    fields: dict[str, Field] = {
        "before": columns[0] * source.channels,
        "inside": source.row_bytes,
        "after": columns[1] * source.channels,
        "top": top,
        "height": source.height,
        "value": value,
    }
    params = Struct("kbnn_pad_params", fields, output.name)
    return Step("kbnn_pad", params, (source,), (Window(padding=top),), output)


@writes("SPLIT")
def _split(lowering: Lowering, operator: Operator) -> None:
    source = lowering.tensor(operator, 1)
    axis = operator.inputs[0]
    if axis is None or not _is_last_axis(operator, int(np.atleast_1d(axis.value())[0])):
        raise refused(operator, "it is supported along channels only")
    for k in range(len(operator.outputs)):
        output = lowering.output(operator, k)
        lowering.add(_channels_step((source,), np.arange(output.channels) + k * output.channels, output))


@writes(
    "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "STRIDED_SLICE", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE",
    "RESIZE_NEAREST_NEIGHBOR",
)  # fmt: skip
def _reorder(lowering: Lowering, operator: Operator) -> None:
    """Follows the index of each value through operators that only move values, such as those of a channel shuffle."""
    value = lowering.of(operator, 0, Tensor, Reordered, Function)
    if isinstance(value, Function):
        _reshape_function(lowering, operator, value)
        return
    source, item = operator.operands[0], operator.outputs[0]
    tensor = value if isinstance(value, Tensor) else value.tensor
    before = value.places if isinstance(value, Reordered) else np.arange(math.prod(source.shape)).reshape(source.shape)
    places = _MOVES.get(operator.name, _reshaped)(operator, before)
    if places.shape != item.shape:
        raise refused(operator, f"it turns the shape {source.shape} into {item.shape}")
    is_same = np.array_equal(places.ravel(), np.arange(tensor.height * tensor.row_bytes))
    lowering.values[item.index] = (
        tensor if is_same and _sizes(item.shape) == _shape_of(tensor) else Reordered(tensor, places, operator)
    )


def _constant(operator: Operator, number: int) -> np.ndarray:
    """An operand that says how values move."""
    item = operator.inputs[number]
    if item is None or item.data is None:
        raise refused(operator, "the places of its values are not constants")
    return item.value()


def _reshaped(operator: Operator, places: np.ndarray) -> np.ndarray:
    return places.reshape(operator.outputs[0].shape)


def _transposed(operator: Operator, places: np.ndarray) -> np.ndarray:
    return places.transpose(_constant(operator, 1))


def _sliced(operator: Operator, places: np.ndarray) -> np.ndarray:
    options = operator.options
    if options.get("ellipsisMask") or options.get("newAxisMask"):
        raise refused(operator, "it slices with an ellipsis or a new axis")
    first, last, steps = (_constant(operator, k).tolist() for k in (1, 2, 3))
    masks = [int(options.get(name) or 0) for name in ("beginMask", "endMask", "shrinkAxisMask")]
    index: list[slice | int] = []
    for axis, (begin, end, step) in enumerate(zip(first, last, steps, strict=True)):
        opens, ends, shrinks = (mask >> axis & 1 for mask in masks)
        index.append(begin if shrinks else slice(None if opens else begin, None if ends else end, step))
    return places[tuple(index)]


def _blocks_in_channels(operator: Operator, places: np.ndarray) -> np.ndarray:
    """The pixels of each block as the channels of one pixel."""
    size = int(operator.options["blockSize"])
    batch, height, width, channels = places.shape
    blocks = places.reshape(batch, height // size, size, width // size, size, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(operator.outputs[0].shape)


def _channels_in_blocks(operator: Operator, places: np.ndarray) -> np.ndarray:
    """The reverse."""
    size = int(operator.options["blockSize"])
    batch, height, width, channels = places.shape
    blocks = places.reshape(batch, height, width, size, size, channels // size**2)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(operator.outputs[0].shape)


def _enlarged(operator: Operator, places: np.ndarray) -> np.ndarray:
    """The nearest pixels, with indices in single precision."""
    options = operator.options
    for axis, size in zip((1, 2), _constant(operator, 1).tolist(), strict=True):
        held = places.shape[axis]
        is_aligned = bool(options.get("alignCorners")) and size > 1
        scale = np.float32(held - 1) / np.float32(size - 1) if is_aligned else np.float32(held) / np.float32(size)
        at = (np.arange(size, dtype=np.float32) + np.float32(0.5 * bool(options.get("halfPixelCenters")))) * scale
        index = integer.rounded(at) if options.get("alignCorners") else np.floor(at).astype(np.int64)
        places = places.take(np.clip(index, 0, held - 1), axis=axis)
    return places


_MOVES: dict[str, Callable[[Operator, np.ndarray], np.ndarray]] = {
    "TRANSPOSE": _transposed,
    "STRIDED_SLICE": _sliced,
    "SPACE_TO_DEPTH": _blocks_in_channels,
    "DEPTH_TO_SPACE": _channels_in_blocks,
    "RESIZE_NEAREST_NEIGHBOR": _enlarged,
}


def _reordering_step(operator: Operator, tensor: Tensor, places: np.ndarray, output: Tensor) -> Step:
    """A step for values in other places: other channels, another shape, or independent places by axis."""
    places = places.reshape(_shape_of(output))
    order = places[0, 0]
    # Which channels of its own pixel each output channel is.
    pixels = np.arange(tensor.height * tensor.width).reshape(tensor.height, tensor.width, 1) * tensor.channels
    if _shape_of(tensor)[:2] == places.shape[:2] and np.array_equal(places, pixels + order):
        return _channels_step((tensor,), order, output)
    # Every row may read any row of the source, which must outlast the step.
    whole = (Window(0, tensor.height, 0),)
    if np.array_equal(places.ravel(), np.arange(tensor.height * tensor.row_bytes)):
        params = Struct("kbnn_reshape_params", {"bytes": output.row_bytes}, output.name)
        return Step("kbnn_reshape", params, (tensor,), whole, output)
    rows, columns = places[:, 0, 0], places[0, :, 0] - places[0, 0, 0]
    channels = order - order[0]
    if not np.array_equal(places, rows[:, None, None] + columns[:, None] + channels):
        raise refused(operator, "its values do not move by whole rows, columns and channels")
    fields: dict[str, Field] = {
        "rows": Array("int32_t", rows, f"{output.name}/rows"),
        "columns": Array("int32_t", columns, f"{output.name}/columns"),
        "places": Array("int32_t", channels, f"{output.name}/places"),
        "width": output.width,
        "channels": output.channels,
    }
    return Step("kbnn_rearrange", Struct("kbnn_rearrange_params", fields, output.name), (tensor,), whole, output)


def _reshape_function(lowering: Lowering, operator: Operator, value: Function) -> None:
    """Reshapes one pixel into a vector, or the reverse."""
    shapes = [tensor.shape for tensor in (operator.inputs[0], operator.outputs[0]) if tensor is not None]
    if len({tuple(size for size in shape if size != 1) for shape in shapes}) != 1:
        raise refused(operator, "it reshapes a float value")
    lowering.values[operator.outputs[0].index] = value
