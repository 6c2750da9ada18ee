"""An audit as a page for people: the network drawn from top to bottom, coloured by how many bits it computes with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kbnn import tables
from kbnn.analysis.page import Page, Section, Table
from kbnn.analysis.pictures import COLOURS, Picture, picture
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.audit import Audit, Convolution, audit, convolution, is_convolution
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor

_BLUE, _ORANGE, _GREEN = COLOURS[:3]
# Bits -> colour. Integers that are neither 1 nor 8 bits wide only count or index.
_COLOUR_OF_BITS = {1: _BLUE, 8: _GREEN, 32: _ORANGE}
_NEUTRAL = "#8b949e"
# White cannot be read on these.
_TEXT_ON = {_ORANGE: "#14171a", _NEUTRAL: "#14171a"}
_WORDS = {
    "LceQuantize": "keep the signs: 1 bit per value",
    "LceDequantize": "signs back to numbers",
    "LceBconv2d": "1-bit convolution",
    "LceBMaxPool2d": "maximum of signs",
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "convolution per channel",
    "TRANSPOSE_CONV": "transposed convolution",
    "FULLY_CONNECTED": "dense layer",
    "ADD": "addition",
    "SUB": "subtraction",
    "MUL": "multiplication",
    "PRELU": "PReLU: scale what is negative",
    "AVERAGE_POOL_2D": "mean of windows",
    "MAX_POOL_2D": "maximum of windows",
    "MEAN": "mean",
    "PAD": "padding",
    "PADV2": "padding",
    "CONCATENATION": "put side by side",
    "SPLIT": "split by channels",
    "DEQUANTIZE": "stored integers to numbers",
    "QUANTIZE": "numbers to integers",
    "RSQRT": "1 / square root",
}
_ROW = 0.3  # inches
_TOP = 0.5


def write_page(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Writes the audit of a file as one self-contained HTML page.

    Raises:
        UsageError: there is no such file.
        KbnnError: it is no readable .tflite file, or the page cannot be written.
    """
    page(flatbuffer.read(path), Path(path).name).write(output)


def page(file: File, name: str) -> Page:
    """The page of a file."""
    found = audit(file, name)
    return Page(
        title=f"{name}: what it computes with",
        summary=_summary(found),
        sections=[_meaning(found), _drawing(file), _convolutions(found), _operators(found)],
    )


def _summary(found: Audit) -> str:
    return (
        f"{tables.size(found.size_bytes)}, {sum(found.operators.values())} operators, "
        f"{len(found.binary_convolutions)} binary convolutions that do {found.binary_share:.1%} of all "
        f"multiply-accumulates."
    )


def _meaning(found: Audit) -> Section:
    in_int8 = any(c.bits == 8 for c in found.float_convolutions)
    what = (
        "A binary convolution works on signs: every value it reads and every weight it holds is +1 or -1, one bit. "
        "A multiplication is then an XNOR and a sum a count of bits, 64 at once; weights take a 32nd of the memory. "
        "The rest of the network, its first and last layer above all, "
        + ("is held in 8 bits here." if in_int8 else "stays real-valued.")
    )
    words = [what]
    if found.silent_fallbacks:
        words.append(
            "These layers look 1-bit and are not: the converter did not recognise them and computes them in float, "
            "slower and larger than meant: " + "; ".join(found.silent_fallbacks) + "."
        )
    elif found.binary_convolutions:
        words.append("No layer that looks 1-bit was left in float.")
    return Section("What this means", words)


def _drawing(file: File) -> Section:
    words = (
        "From the image at the top to the answer at the bottom, in the order of execution; each line is what one step "
        "hands to a later one. Colour tells the bits per value. Bars show each step's share of the multiplications."
    )
    return Section("The network", [words], pictures=[_picture(file)])


def _picture(file: File) -> Picture:
    height = _TOP + _ROW * (len(_steps(file)) + 2)
    caption = "Every operator of the file. Blue: 1 bit. Green: 8 bits. Orange: 32 bits, real numbers."
    return picture(_draw(file, height), caption, (9.0, height))


def _steps(file: File) -> list[Operator]:
    """The operators in order; those that only unpack stored weights are part of what reads them."""
    return [operator for operator in file.operators if operator.operands]


def _draw(file: File, height: float) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.set_xlim(0, 9)
        axes.set_ylim(height, 0)
        axes.axis("off")
        _legend(axes)
        for start, end, lane, bits in _lines(file):
            _draw_line(axes, start, end, lane, bits)
        for tensor in file.inputs.values():
            _draw_box(axes, _height(-1), f"input {_by(tensor.shape[1:])}", _bits(tensor))
        costs = {operator.index: convolution(file, operator) for operator in _steps(file) if is_convolution(operator)}
        largest = max((cost.macs for cost in costs.values()), default=1)
        for row, operator in enumerate(_steps(file)):
            _draw_operator(axes, operator, _height(row), costs.get(operator.index), largest)
        _draw_box(axes, _height(len(_steps(file))), f"output {', '.join(file.outputs)}", 32)

    return draw


def _height(row: int) -> float:
    """Where a row lies: the input's is -1, the output's the last."""
    return _TOP + _ROW * (row + 1.5)


def _lines(file: File) -> list[tuple[int, int, int, int]]:
    """From row, to row, lane and bits of every value that one step hands to another.

    Lane 0 goes straight down to the next row; others go around, each as near as those beside it leave room.
    """
    rows = {operator.index: row for row, operator in enumerate(_steps(file))}
    made = {index: rows[operator.index] for index, operator in file.producers.items() if operator.index in rows}
    made |= {tensor.index: -1 for tensor in file.inputs.values()}
    read = [(rows[o.index], tensor) for o in _steps(file) for tensor in o.operands]
    read += [(len(rows), tensor) for tensor in file.outputs.values()]
    lines, busy_until = [], [0]
    for start, end, bits in sorted({(made[t.index], row, _bits(t)) for row, t in read if t.index in made}):
        if end - start <= 1:
            lines.append((start, end, 0, bits))
            continue
        lane = next((k for k, until in enumerate(busy_until) if k and until <= start), len(busy_until))
        busy_until[lane:] = [end, *busy_until[lane + 1 :]]
        lines.append((start, end, lane, bits))
    return lines


def _draw_line(axes: Any, start: int, end: int, lane: int, bits: int) -> None:
    colour, width = _COLOUR_OF_BITS.get(bits, _NEUTRAL), 1.2 if bits == 1 else 2.0
    top, bottom = _height(start), _height(end)
    if lane == 0:
        axes.plot([1.2, 1.2], [top, bottom], color=colour, linewidth=width, zorder=1)
        return
    x, bend = max(0.95 - 0.09 * lane, 0.04), 0.4 * _ROW
    across, down = [1.1, x, x, 1.1], [top + 0.05, top + bend, bottom - bend, bottom - 0.05]
    axes.plot(across, down, color=colour, linewidth=width, zorder=1, solid_joinstyle="round")


def _draw_operator(axes: Any, operator: Operator, y: float, cost: Convolution | None, largest: int) -> None:
    words = _WORDS.get(operator.name, operator.name.lower().replace("_", " "))
    _draw_box(axes, y, words if cost is None else f"{words} {_kernel(cost)}", _operator_bits(operator, cost))
    output = operator.outputs[0]
    axes.text(4.65, y, _shortened(output.name.split(";")[0]), fontsize=6.5, va="center")
    axes.text(6.45, y, _by(_unpacked(operator)), fontsize=6.5, va="center")
    if cost is not None:
        colour = _COLOUR_OF_BITS.get(cost.bits, _NEUTRAL)
        axes.barh(y, 1.1 * cost.macs / largest, left=7.3, height=0.45 * _ROW, color=colour)
        axes.text(7.35 + 1.1 * cost.macs / largest, y, _count(cost.macs), fontsize=6, va="center")


def _count(number: int) -> str:
    """A number of multiplications in a few letters."""
    if number < 1e4:
        return str(number)
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number / 1e3:.0f} k"


def _shortened(name: str, length: int = 27) -> str:
    return name if len(name) <= length else f"…{name[1 - length :]}"


def _unpacked(operator: Operator) -> tuple[int, ...]:
    """The shape of what an operator makes, in values, not in words of 32 signs."""
    output = operator.outputs[0]
    if output.dtype != "int32" or not operator.name.startswith("Lce"):
        return output.shape[1:]
    weights = operator.inputs[1] if operator.name == "LceBconv2d" else None
    channels = {"LceQuantize": operator.operands[0].shape[-1]}.get(operator.name, 32 * output.shape[-1])
    return (*output.shape[1:-1], weights.shape[0] if weights is not None else channels)


def _draw_box(axes: Any, y: float, label: str, bits: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour = _COLOUR_OF_BITS.get(bits, _NEUTRAL)
    box = FancyBboxPatch(
        (1.0, y - 0.33 * _ROW),
        3.45,
        0.66 * _ROW,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=colour,
        edgecolor="none",
        zorder=2,
    )
    axes.add_patch(box)
    axes.text(1.1, y, label, fontsize=7, va="center", color=_TEXT_ON.get(colour, "white"), fontweight="bold", zorder=3)


def _legend(axes: Any) -> None:
    for x, heading in ((1.0, "step"), (4.65, "layer"), (6.45, "makes"), (7.3, "multiplications")):
        axes.text(x, 0.45, heading, fontsize=7.5, va="center", fontweight="bold")
    for x, bits, meaning in ((1.0, 1, "1 bit"), (2.2, 8, "8 bits"), (3.4, 32, "32 bits, real numbers")):
        axes.plot([x, x + 0.25], [0.18, 0.18], color=_COLOUR_OF_BITS[bits], linewidth=6, solid_capstyle="butt")
        axes.text(x + 0.32, 0.18, meaning, fontsize=7, va="center")


def _kernel(cost: Convolution) -> str:
    height, width, per_group, filters = cost.kernel
    grouped = f", {cost.groups} groups" if cost.groups > 1 else ""
    return f"{height}x{width}, {per_group * cost.groups} to {filters} channels{grouped}"


def _operator_bits(operator: Operator, cost: Convolution | None) -> int:
    return cost.bits if cost is not None else _bits(operator.outputs[0])


def _bits(tensor: Tensor) -> int:
    """Bits per value: LCE packs 32 signs into an int32."""
    return {"int32": 1, "int8": 8, "uint8": 8, "float32": 32, "float16": 16}.get(tensor.dtype, 0)


def _convolutions(found: Audit) -> Section:
    rows = [
        (
            c.name,
            c.operator,
            _by(c.input),
            _by(c.kernel),
            c.bits,
            f"{c.macs:,}",
            f"{c.weight_bytes:,}",
            c.output,
        )
        for c in [*found.binary_convolutions, *found.float_convolutions]
    ]
    columns = ("layer", "operator", ">input", ">kernel", ">bits", ">MACs", ">bytes", "writes")
    caption = "MACs: multiply-accumulates of one inference. Bytes: of the weights, scales and biases."
    return Section("Convolutions and dense layers", tables=[Table(columns, rows, caption)])


def _operators(found: Audit) -> Section:
    rows = [(name, _WORDS.get(name, ""), count) for name, count in found.operators.items()]
    return Section("Operators", tables=[Table(("operator", "what it does", ">times"), rows)])


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "1"
