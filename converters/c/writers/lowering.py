"""The state of a translation: the steps so far, what each tensor of the file is, and the writer of each operator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, overload

import numpy as np

from kbnn.converters.c.plan import Step, Tensor
from kbnn.converters.c.writers.operators import quantization, refused, sample_shape
from kbnn.converters.c.writers.steps import function_step, reordering_step
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File, Operator


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


# The tensors for which a step is added only if something reads them.
Deferred = Derived | Padded | Reordered
Value = Tensor | Signs | Function | Normalizing | Deferred
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
        if isinstance(value, Deferred) and type(value) not in kinds:
            value = self.computed(value)
        if not isinstance(value, kinds):
            raise refused(operator, _unreadable(operand))
        return value

    def output(self, operator: Operator, number: int = 0, kind: str = "int8") -> Tensor:
        """A new tensor in memory for an operator's output."""
        item = operator.outputs[number]
        if item.dtype != {"int8": "int8", "bits": "int32"}[kind]:
            raise refused(operator, f"it writes {item.dtype}")
        shape = sample_shape(item.shape)
        if shape is None:
            raise refused(operator, f"its output has the shape {item.shape}, which is not one vector, signal or image")
        height, width, channels = shape
        if kind == "bits":
            return Tensor(item.name, height, width, 32 * channels, "bits")
        scale, zero_point = quantization(operator, item)
        made = Tensor(item.name, height, width, channels, "int8", scale, zero_point)
        self.values[item.index] = made
        return made

    def computed(self, value: Deferred) -> Tensor:
        """Adds the step that computes a tensor that is not in memory yet, and returns the tensor."""
        index = next(index for index, held in self.values.items() if held is value)
        if isinstance(value, Reordered):
            step = reordering_step(value.operator, value.tensor, value.places, self.output(value.operator))
        elif isinstance(value, Padded):
            step = value.step
        else:
            step = value.step or function_step(value.source, value.table, value.tensor)
        self.add(step)
        self.values[index] = step.output
        return step.output

    def derive(
        self, operator: Operator, source: Tensor, table: np.ndarray, output: Tensor, step: Step | None = None
    ) -> None:
        """Records an operator's output as a function of a tensor, `(256, C)`, or `(256, 1)` for all channels."""
        table = np.broadcast_to(table, (len(table), source.channels))
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


Writer = Callable[[Lowering, Operator], None]
WRITERS: dict[str, Writer] = {}


def writes(*names: str) -> Callable[[Writer], Writer]:
    """Registers the writer of operators."""

    def decorator(writer: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(names, writer))
        return writer

    return decorator
