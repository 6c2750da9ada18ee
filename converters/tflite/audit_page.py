"""An audit as an HTML page: the network from top to bottom, and an estimate of where the time goes."""

import importlib.resources
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kbnn import files, tables
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.audit import LCE_OPERATORS, Audit, Work, audit, by
from kbnn.converters.tflite.estimate import DEVICES
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.operators import (
    AuditedConvolution,
    convolution,
    is_convolution,
    layer_name,
    multiplies,
    values,
)
from kbnn.errors import KbnnError
from kbnn.printable import printable

_WORDS = {
    "LceQuantize": "sign: 1 bit per value",
    "LceDequantize": "signs to numbers",
    "LceBconv2d": "1-bit convolution",
    "LceBMaxPool2d": "max pooling of signs",
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise convolution",
    "TRANSPOSE_CONV": "transposed convolution",
    "FULLY_CONNECTED": "dense layer",
    "ADD": "addition",
    "SUB": "subtraction",
    "MUL": "multiplication",
    "PRELU": "PReLU",
    "AVERAGE_POOL_2D": "average pooling",
    "MAX_POOL_2D": "max pooling",
    "MEAN": "mean",
    "PAD": "padding",
    "PADV2": "padding",
    "CONCATENATION": "concatenation",
    "SPLIT": "split",
    "DEQUANTIZE": "integers to real numbers",
    "QUANTIZE": "real numbers to integers",
    "RSQRT": "1 / square root",
    "CONV_3D": "3-D convolution",
    "BATCH_MATMUL": "matrix product",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "LSTM",
}
# A page with more steps is unreadable, and too large for a phone.
_MOST_STEPS = 2000
_MOST_LANES = 5
_LONGEST_NAME = 80
# The separators in a layer's name, such as stage1_block2_conv1 or model/layer2.0/conv.
_SEPARATORS = re.compile(r"[_/.]")


@dataclass(frozen=True)
class Lane:
    """The line of a value next to a step, where it starts, passes by or ends."""

    position: int
    part: str
    bits: int


@dataclass(frozen=True)
class PageStep:
    """One operator as the page shows it; `macs_share` and `cost_share` are fractions of the largest step's."""

    number: int
    words: str
    operator: str
    name: str
    shape: str
    bits: int
    reads: str
    lanes: Sequence[Lane]
    macs: str
    macs_share: float
    cost: str
    cost_share: float


@dataclass(frozen=True)
class PageBlock:
    """Steps that belong together: a residual block, or the steps between two of them."""

    title: str
    shape: str
    share: str
    steps: Sequence[PageStep]


def write_page(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Writes the audit of a file as one self-contained HTML page.

    Raises:
        UsageError: there is no such file.
        KbnnError: it is not a readable .tflite file, or the page cannot be written.
    """
    files.write(output, page(flatbuffer.read(path), Path(path).name))


def page(file: File, name: str, found: Audit | None = None) -> str:
    """The page of a file as HTML; `found` is its audit, if there is one already."""
    import jinja2

    try:
        content = _content(file, found or audit(file, name), name)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise KbnnError(
            f"cannot draw '{name}': its operators do not match ({error}); convert the model again"
        ) from error
    template = importlib.resources.files("kbnn.converters.tflite").joinpath("audit_page.html.j2").read_text()
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=lambda value: _shown(value)
    )
    return environment.from_string(template).render(**content)


def _shown(value: object) -> object:
    """Escapes control characters in names, which come from the file."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _content(file: File, found: Audit, name: str) -> dict[str, object]:
    steps = _steps(file)
    device = next(iter(DEVICES))
    return {
        "title": f"{name}: operators and cost",
        "facts": _facts(found, device),
        "meaning": _meaning(found),
        "fallbacks": [_cut(fallback, 300) for fallback in found.silent_fallbacks[:_MOST_STEPS]],
        "costs": _costs(found, device),
        "devices": list(DEVICES.values()),
        "inputs": [f"{_cut(name)} {by(tensor.shape[1:])}" for name, tensor in file.inputs.items()][:_MOST_STEPS],
        "outputs": [f"{_cut(name)} {by(tensor.shape[1:])}" for name, tensor in file.outputs.items()][:_MOST_STEPS],
        "blocks": _blocks(file, found, steps[:_MOST_STEPS], device),
        "lanes": _MOST_LANES,
        "left_out": max(0, len(steps) - _MOST_STEPS),
        "drawn": _MOST_STEPS,
        "convolutions": _convolution_rows(found),
        "operators": [(_cut(name), _WORDS.get(name, ""), count) for name, count in found.operators.items()],
    }


def _facts(found: Audit, device: str) -> list[tuple[str, str]]:
    return [
        ("size", tables.size(found.size_bytes)),
        ("operators", f"{sum(found.operators.values()):,}"),
        ("binary convolutions", f"{len(found.binary_convolutions)}"),
        ("MACs that are binary", found.share),
        (f"instructions, estimated for a {DEVICES[device]}", tables.count(found.instructions[device])),
    ]


def _meaning(found: Audit) -> list[str]:
    in_int8 = any(c.bits == 8 for c in found.float_convolutions)
    rest = "is held in 8 bits here" if in_int8 else "stays real-valued"
    what = (
        "A binary convolution works on signs: every value it reads and every weight it holds is +1 or -1, one bit. A "
        "multiplication is then an XNOR, and a sum counts bits, 64 at once; weights take 1/32 of the memory. The rest "
        f"of the network, above all its first and last layer, {rest}."
    )
    words = [what]
    if found.not_counted:
        words.append(f"The binary share is {found.share_text}.")
    if not found.silent_fallbacks and found.binary_convolutions:
        words.append("No layer that looks 1-bit was left in float.")
    return words


def _costs(found: Audit, device: str) -> list[tuple[str, str, int, float, list[str]]]:
    """Operator, words, number, share and estimates of each type of operator, the most expensive first."""
    groups: dict[str, list[Work]] = {}
    for work in found.work:
        groups.setdefault(work.operator, []).append(work)
    total = found.instructions[device] or 1.0
    rows = []
    for name, members in groups.items():
        sums = {each: sum(work.instructions[each] or 0.0 for work in members) for each in DEVICES}
        known = not any(work.instructions[device] is None for work in members)
        texts = [tables.count(each) if known else "not measured" for each in sums.values()]
        rows.append((_cut(name), _WORDS.get(name, ""), len(members), sums[device] / total, texts))
    return sorted(rows, key=lambda row: -row[3])[:_MOST_STEPS]


def _steps(file: File) -> list[Operator]:
    """The operators in execution order, without those that only unpack stored weights."""
    return [operator for operator in file.operators if operator.operands]


def _blocks(file: File, found: Audit, steps: list[Operator], device: str) -> list[PageBlock]:
    rows = _rows(file, found, steps, device)
    total = found.instructions[device] or 1.0
    blocks, start = [], 0
    for title, count in _grouped(file, steps):
        members, operators = rows[start : start + count], steps[start : start + count]
        cost = sum(work.instructions[device] or 0.0 for work in found.work[start : start + count])
        first, last = (_shape(operator) for operator in (operators[0], operators[-1]))
        shape = last if first == last else f"{first} to {last}"
        blocks.append(PageBlock(title, shape, f"{cost / total:.1%}", members))
        start += count
    return blocks


def _rows(file: File, found: Audit, steps: list[Operator], device: str) -> list[PageStep]:
    costs = {o.index: convolution(file, o) for o in steps if multiplies(o)}
    most_macs = max((cost.macs for cost in costs.values()), default=0) or 1
    most = max((work.instructions[device] or 0.0 for work in found.work[: len(steps)]), default=0.0) or 1.0
    made = {output.index: row for row, operator in enumerate(steps) for output in operator.outputs}
    lanes = _lanes(_lines(file, steps), len(steps))
    rows = []
    for row, (operator, work) in enumerate(zip(steps, found.work, strict=False)):
        cost, estimate = costs.get(operator.index), work.instructions[device]
        rows.append(
            PageStep(
                number=row + 1,
                words=_described(operator, cost),
                operator=_cut(operator.name),
                name=_cut(work.name),
                shape=_shape(operator),
                bits=_operator_bits(file, operator, cost),
                reads=_reads(operator, row, made),
                lanes=lanes[row],
                macs="" if cost is None else f"{tables.count(cost.macs)} MACs",
                macs_share=0.0 if cost is None else cost.macs / most_macs,
                cost="" if estimate is None else tables.count(estimate),
                cost_share=(estimate or 0.0) / most,
            )
        )
    return rows


def _described(operator: Operator, cost: AuditedConvolution | None) -> str:
    words = _WORDS.get(operator.name, operator.name.lower().replace("_", " ")[:_LONGEST_NAME])
    if cost is None or not is_convolution(operator):
        return words
    height, width, per_group, filters = cost.kernel
    grouped = f", {cost.groups} groups" if cost.groups > 1 and operator.name != "DEPTHWISE_CONV_2D" else ""
    inputs = cost.input[-1] if operator.name == "DEPTHWISE_CONV_2D" else per_group * cost.groups
    size = "" if operator.name == "FULLY_CONNECTED" else f" {height}x{width},"
    return f"{words}{size} {inputs} to {filters}{grouped}"


def _reads(operator: Operator, row: int, made: dict[int, int]) -> str:
    """The steps whose values an operator reads; empty if that is only the step before."""
    sources = [made.get(tensor.index, -1) for tensor in operator.operands[: 2 * _MOST_LANES]]
    if sources == [row - 1]:
        return ""
    names = ["the input" if source < 0 else str(source + 1) for source in sources]
    more = " …" if len(operator.operands) > len(sources) else ""
    return f"reads {' and '.join(names)}{more}"


def _grouped(file: File, steps: list[Operator]) -> list[tuple[str, int]]:
    """Titles and lengths of the blocks.

    A block ends where a single value is alive: after a residual addition, or anywhere in a plain chain. Adjacent blocks
    whose layers' names have the same beginning, such as stage1_block1, are merged.
    """
    pieces, start = [], 0
    for end in _cuts(file, steps):
        members = steps[start : end + 1]
        pieces.append((_title(file, members), len(members)))
        start = end + 1
    grouped = itertools.groupby(pieces, key=lambda piece: piece[0])
    return [(title, sum(count for _, count in members)) for title, members in grouped]


def _cuts(file: File, steps: list[Operator]) -> list[int]:
    """The rows after which at most one value is still to be read."""
    made = {output.index: row for row, operator in enumerate(steps) for output in operator.outputs}
    last = {tensor.index: row for row, operator in enumerate(steps) for tensor in operator.operands}
    last |= {tensor.index: len(steps) - 1 for tensor in file.outputs.values() if tensor.index in made}
    alive = [0] * (len(steps) + 1)
    for index, end in last.items():
        start = made.get(index, 0)
        if start < end:
            alive[start] += 1
            alive[end] -= 1
    counts = list(itertools.accumulate(alive))
    return [row for row in range(len(steps)) if counts[row] <= 1 or row == len(steps) - 1]


def _title(file: File, members: list[Operator]) -> str:
    """The common beginning of the names of a block's layers, or else the size of its feature maps."""
    names = [_SEPARATORS.split(layer_name(file, operator)) for operator in members if operator.outputs]
    if len(names) == 1:
        names.append(names[0][:-1])
    common = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))]
    if common:
        # The separators are part of the name.
        name = layer_name(file, next(operator for operator in members if operator.outputs))
        return _cut(name[: len("_".join(common))])
    sizes = _shape(members[-1]).split("x")
    return "x".join(sizes[:-1]) + " maps" if len(sizes) > 2 else "vectors"


def _lines(file: File, steps: list[Operator] | None = None) -> list[tuple[int, int, int, int]]:
    """Start row, end row, lane and bits of every value that one step passes to another.

    Row -1 is the input, and the row after the last step the output. Lane 0 goes straight to the next row; other values
    take the nearest free lane. Values for which no lane is free are not drawn.
    """
    steps = _steps(file) if steps is None else steps
    made = {output.index: row for row, operator in enumerate(steps) for output in operator.outputs}
    made |= {tensor.index: -1 for tensor in file.inputs.values()}
    read: list[tuple[int, Tensor]] = [(row, tensor) for row, o in enumerate(steps) for tensor in o.operands]
    read += [(len(steps), tensor) for tensor in file.outputs.values()]
    lines, busy_until = [], [0] * (_MOST_LANES + 1)
    for start, end, bits in sorted({(made[t.index], row, _bits(file, t)) for row, t in read if t.index in made}):
        if end - start <= 1:
            lines.append((start, end, 0, bits))
            continue
        lane = next((k for k, until in enumerate(busy_until) if k and until <= start), None)
        if lane is not None:
            busy_until[lane] = end
            lines.append((start, end, lane, bits))
    return lines


def _lanes(lines: Iterable[tuple[int, int, int, int]], count: int) -> list[list[Lane]]:
    """The lines next to each row."""
    rows: list[list[Lane]] = [[] for _ in range(count)]
    for start, end, lane, bits in lines:
        if lane == 0:
            continue
        for row in range(max(start, 0), min(end + 1, count)):
            part = {start: "start", end: "end"}.get(row, "through")
            rows[row].append(Lane(lane, part, bits))
    return rows


def _shape(operator: Operator) -> str:
    if not operator.outputs:
        return "nothing"
    sizes = values(operator)
    return by(sizes) if len(sizes) <= 6 else f"{by(sizes[:6])}…"


def _cut(name: str, longest: int = _LONGEST_NAME) -> str:
    return printable(name, longest=longest)


def _operator_bits(file: File, operator: Operator, cost: AuditedConvolution | None) -> int:
    if cost is not None:
        return cost.bits
    return _bits(file, operator.outputs[0]) if operator.outputs else 0


def _bits(file: File, tensor: Tensor) -> int:
    """Bits per value; 0 for other types than those of networks' values, such as the numbers of classes."""
    producer = file.producers.get(tensor.index)
    if tensor.dtype == "int32" and producer is not None and producer.name in LCE_OPERATORS:
        # LCE packs 32 signs into an int32.
        return 1
    return {"int8": 8, "uint8": 8, "int16": 16, "float32": 32, "float16": 16}.get(tensor.dtype, 0)


def _convolution_rows(found: Audit) -> list[tuple[object, ...]]:
    return [
        (_cut(c.name), c.operator, by(c.input), by(c.kernel), c.bits, f"{c.macs:,}", f"{c.weight_bytes:,}", c.output)
        for c in [*found.binary_convolutions, *found.float_convolutions][:_MOST_STEPS]
    ]
