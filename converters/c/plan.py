"""Groups steps on rows into passes, and assigns each tensor a place in the arena.

A pass executes its steps row by row, so a tensor that is read only in the pass that computes it, row by row, needs
memory for one row. Other tensors are stored whole. A tensor that is read for the last time in a pass may be overwritten
by the pass's output, if each of its rows is read before it is overwritten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from kbnn.converters.errors import ConversionError

_ALIGNMENT = 4


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value in memory, row by row: "int8", "bits" or "float", in the arena, the image or the scores."""

    name: str
    height: int
    width: int
    channels: int
    kind: str = "int8"
    scale: float = 1.0
    zero_point: int = 0
    memory: str = "arena"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def quantization(self) -> tuple[float, int]:
        return self.scale, self.zero_point

    @property
    def row_bytes(self) -> int:
        sizes = {"int8": self.channels, "bits": 4 * words_of(self.channels), "float": 4 * self.channels}
        return self.width * sizes[self.kind]


def words_of(channels: int) -> int:
    """The 32-bit words of a pixel of signs."""
    return -(-channels // 32)


@dataclass(frozen=True)
class Window:
    """Output row y reads `extent` rows of the input, beginning with row y·stride - padding.

    `buffered` rows are read once, ahead of time, into the step's own memory. `in_place` means that each value of a row
    is read before it is overwritten, if input and output have the same size.
    """

    stride: int = 1
    extent: int = 1
    padding: int = 0
    buffered: bool = False
    in_place: bool = False

    @property
    def is_row(self) -> bool:
        """Whether output row y depends on input row y only."""
        return self.stride == 1 and self.extent == 1 and self.padding == 0


@dataclass(frozen=True, eq=False)
class Array:
    """A constant array of the generated file; rows of two dimensions are structs."""

    ctype: str
    values: np.ndarray
    name: str


@dataclass(frozen=True, eq=False)
class Struct:
    """A constant struct of the generated file: numbers, names of functions, arrays and structs by field."""

    ctype: str
    fields: Mapping[str, "Field"]
    name: str


# A field of a `Struct`.
Field: TypeAlias = "int | float | str | Array | Struct"


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a kernel per row. Each input has its window; `scratch` is in bytes."""

    kernel: str
    params: Struct
    inputs: tuple[Tensor, ...]
    windows: tuple[Window, ...]
    output: Tensor
    scratch: int = 0
    binary_macs: int = 0
    real_macs: int = 0


@dataclass
class Pass:
    """Steps that are executed together, each once per row."""

    steps: list[Step] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return self.steps[0].output.height

    def makes(self, tensor: Tensor) -> bool:
        return any(step.output is tensor for step in self.steps)

    def takes(self, step: Step) -> bool:
        """Whether a step can join: it has as many rows, and of the pass's outputs it reads only the current row."""
        if self.steps and step.output.height != self.rows:
            return False
        return all(w.is_row for t, w in zip(step.inputs, step.windows, strict=True) if self.makes(t))


@dataclass(frozen=True)
class Place:
    """Where a tensor's rows are: row y at offset + (y % rows)·pitch."""

    offset: int
    pitch: int
    rows: int
    memory: str


@dataclass(frozen=True)
class Plan:
    """Passes in order, the places of tensors and of scratch memory by identity, and the arena's size in bytes."""

    passes: Sequence[Pass]
    places: dict[int, Place]
    scratch: dict[int, int]
    arena_bytes: int
    largest: tuple[str, int]

    def place(self, tensor: Tensor) -> Place:
        return self.places[id(tensor)]


def passes_of(steps: Sequence[Step]) -> list[Pass]:
    """Steps in as few passes as their order allows."""
    passes = [Pass()]
    for step in steps:
        if not passes[-1].takes(step):
            passes.append(Pass())
        passes[-1].steps.append(step)
    return passes


@dataclass(eq=False)
class _Block:
    """Memory of one tensor, or of several in succession: `(size, first pass, last pass)` each, at one offset."""

    parts: list[tuple[int, int, int]]
    offset: int = 0

    @property
    def size(self) -> int:
        return max(size for size, _, _ in self.parts)

    @property
    def last(self) -> int:
        return self.parts[-1][2]

    def overlaps(self, other: "_Block", offset: int) -> bool:
        """Whether both would use the same memory at the same time, with this one at an offset."""
        return any(
            a_first <= b_last and b_first <= a_last and offset < other.offset + b and other.offset < offset + a
            for a, a_first, a_last in self.parts
            for b, b_first, b_last in other.parts
        )


def plan(steps: Sequence[Step]) -> Plan:
    """Passes, and an arena in which nothing that is still needed is overwritten."""
    passes = passes_of(steps)
    last_use = {id(t): p for p, each in enumerate(passes) for step in each.steps for t in step.inputs}
    blocks: dict[int, _Block] = {}
    scratch: dict[int, _Block] = {}
    rows: dict[int, int] = {}
    for p, each in enumerate(passes):
        for k, step in enumerate(each.steps):
            if step.scratch:
                scratch[id(step)] = _Block([(_aligned(step.scratch), p, p)])
            tensor = step.output
            local = tensor.memory == "arena" and _is_local(each, tensor, last_use.get(id(tensor), p) == p)
            rows[id(tensor)] = 1 if local else tensor.height
            if tensor.memory != "arena":
                continue
            end = last_use.get(id(tensor), p)
            size = _aligned(rows[id(tensor)] * tensor.row_bytes)
            found = _row_under if local else _overwritable
            under = found(each, k, p, last_use, blocks, rows)
            if under is not None:
                under.parts.append((size, p, end))
                blocks[id(tensor)] = under
            else:
                blocks[id(tensor)] = _Block([(size, p, end)])
    arena = _assign(list(dict.fromkeys([*blocks.values(), *scratch.values()])))
    tensors = {id(t): t for step in steps for t in (*step.inputs, step.output)}
    places = {
        key: Place(blocks[key].offset if key in blocks else 0, t.row_bytes, rows.get(key, t.height), t.memory)
        for key, t in tensors.items()
    }
    working = {id(step): f"working memory of {step.output.name}" for step in steps}
    names = {key: tensor.name for key, tensor in tensors.items()} | working
    largest = max([*blocks.items(), *scratch.items()], key=lambda item: item[1].size, default=None)
    named = ("nothing", 0) if largest is None else (names[largest[0]], largest[1].size)
    return Plan(passes, places, {key: block.offset for key, block in scratch.items()}, arena, named)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _is_local(each: Pass, tensor: Tensor, ends_here: bool) -> bool:
    """Whether a tensor is read only in the pass that computes it, row by row."""
    windows = [w for step in each.steps for t, w in zip(step.inputs, step.windows, strict=True) if t is tensor]
    return ends_here and bool(windows) and all(w.is_row for w in windows)


def _row_under(
    each: Pass, writer: int, number: int, last_use: dict[int, int], blocks: dict[int, _Block], rows: dict[int, int]
) -> _Block | None:
    """The block of an input that is stored as one row, and that this step is the last to read, value by value."""
    step = each.steps[writer]
    later = {id(t) for other in each.steps[writer + 1 :] for t in other.inputs}
    for tensor, window in zip(step.inputs, step.windows, strict=True):
        block = blocks.get(id(tensor))
        same = window.in_place and window.is_row and tensor.row_bytes == step.output.row_bytes
        ends = last_use[id(tensor)] == number and id(tensor) not in later
        if block is not None and same and ends and each.makes(tensor) and rows[id(tensor)] == 1:
            return block
    return None


def _overwritable(
    each: Pass, writer: int, number: int, last_use: dict[int, int], blocks: dict[int, _Block], rows: dict[int, int]
) -> _Block | None:
    """The block of an input that is last read in this pass, each row before the output overwrites it."""
    output = each.steps[writer].output
    inputs = {id(t): t for step in each.steps for t in step.inputs if id(t) in blocks and not each.makes(t)}
    for key, tensor in sorted(inputs.items(), key=lambda item: -blocks[item[0]].size):
        block = blocks[key]
        free = last_use[key] == number and block.last == number and rows[key] == tensor.height
        if free and all(_is_safe(each, k, writer, tensor, output) for k in range(len(each.steps))):
            return block
    return None


def _is_safe(each: Pass, reader: int, writer: int, tensor: Tensor, output: Tensor) -> bool:
    step = each.steps[reader]
    windows = [w for t, w in zip(step.inputs, step.windows, strict=True) if t is tensor]
    for window in windows:
        for y in range(output.height):
            needed = _next_row(window, y, reader, writer, tensor.row_bytes == output.row_bytes)
            if needed < tensor.height and (y + 1) * output.row_bytes > max(needed, 0) * tensor.row_bytes:
                return False
    return True


def _next_row(window: Window, y: int, reader: int, writer: int, same_size: bool) -> int:
    """The first row that a reader still needs when the writer has written row y."""
    if window.buffered:
        done = y if reader <= writer else y - 1
        return done * window.stride + window.extent - window.padding if done >= 0 else 0
    if reader < writer or (reader == writer and window.in_place and same_size):
        return (y + 1) * window.stride - window.padding
    return y * window.stride - window.padding


def _assign(blocks: list[_Block]) -> int:
    """Assigns offsets, largest block first, each the lowest that overlaps no block in use then; returns the size."""
    placed: list[_Block] = []
    for block in sorted(blocks, key=lambda block: (-block.size, block.parts[0][1])):
        ends = sorted({other.offset + size for other in placed for size, _, _ in other.parts})
        block.offset = next(at for at in [0, *ends] if not any(block.overlaps(other, at) for other in placed))
        placed.append(block)
    return max((block.offset + block.size for block in placed), default=_ALIGNMENT)


def check_fits(made: Plan, limit: int | None, name: str) -> None:
    """Refuses an arena above a limit.

    Raises:
        ConversionError: it is larger; the message names the largest tensor.
    """
    if limit is not None and made.arena_bytes > limit:
        tensor, size = made.largest
        raise ConversionError(
            f"'{name}' needs an arena of {made.arena_bytes} bytes: received a limit of {limit}; the largest "
            f"tensor is '{tensor}' with {size} bytes: use a smaller image or fewer channels"
        )
