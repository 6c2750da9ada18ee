"""Audit: what a .tflite file contains.

LCE silently falls back to float for a 1-bit convolution that it does not recognize, so the audit reads the file itself.
"""

import collections
import math
import os
from dataclasses import dataclass

from kbnn import tables
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.estimate import DEVICES, Load, instructions
from kbnn.converters.tflite.fallbacks import silent_fallbacks
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.lce import INDIRECT_LIMIT
from kbnn.converters.tflite.operators import (
    AuditedConvolution,
    convolution,
    data_input,
    input_of,
    is_convolution,
    layer_name,
    multiplies,
    positions,
    worked_values,
)
from kbnn.errors import KbnnError

# The operator does not tell what these run, or how often.
_CONTROL = ("WHILE", "IF", "CALL")
LCE_OPERATORS = ("LceQuantize", "LceDequantize", "LceBconv2d", "LceBMaxPool2d")
_BGEMM_CHANNELS = 64
# The most input channels of a convolution that reads an image.
FEW_CHANNELS = 4
_MOST_ROWS = 1000


@dataclass(frozen=True)
class Work:
    """What one operator costs in one inference.

    `instructions` maps a device to the estimated number of instructions, None for an operator whose cost has not been
    measured. Instructions are not a latency: they leave out memory and caches.
    """

    name: str
    operator: str
    macs: int
    instructions: dict[str, float | None]


@dataclass(frozen=True)
class Audit(tables.Shown):
    """What `inspect` finds.

    `float_convolutions` are all convolutions and dense layers that are not binary, including int8 ones. `binary_share`
    is the share of binary MACs in all MACs; it is None if the file does not tell the MACs of some operators, which
    `not_counted` lists. Each entry of `silent_fallbacks` names a layer that looks 1-bit but is not; `pairs` counts the
    places where 1-bit values are unpacked to float again. `work` lists the operators in execution order with their
    estimated instructions, and `instructions` has the sums.
    """

    path: str
    size_bytes: int
    operators: dict[str, int]
    binary_convolutions: list[AuditedConvolution]
    float_convolutions: list[AuditedConvolution]
    binary_macs: int
    float_macs: int
    binary_share: float | None
    silent_fallbacks: list[str]
    pairs: int
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    not_counted: dict[str, int]
    work: list[Work]
    instructions: dict[str, float]

    @property
    def share(self) -> str:
        """The binary share as a percentage, or "not known"."""
        return "not known" if self.binary_share is None else f"{self.binary_share:.2%}"

    @property
    def instructions_text(self) -> str:
        """The estimated instructions of one inference on each device, and the operators that they leave out."""
        counts = ", ".join(f"{name} {tables.count(self.instructions[device], 4)}" for device, name in DEVICES.items())
        return f"{counts}, without {', '.join(self.not_measured)}, not measured" if self.not_measured else counts

    @property
    def not_measured(self) -> list[str]:
        """The types of operators whose instructions are not known, which `instructions` leaves out."""
        return sorted({work.operator for work in self.work if None in work.instructions.values()})

    @property
    def share_text(self) -> str:
        """The binary share with the number of MACs, or the operators whose MACs are unknown."""
        if self.binary_share is not None:
            return f"{self.share} of {self.binary_macs + self.float_macs:,}"
        names = ", ".join(f"{name} {count}" for name, count in self.not_counted.items())
        return f"not known, because the MACs of these operators are not counted: {names}"

    def __str__(self) -> str:
        packed = sum(c.output == "bitpacked" for c in self.binary_convolutions)
        lines = [
            f"{self.path}: {tables.size(self.size_bytes)}",
            "operators: " + ", ".join(f"{name} {count}" for name, count in self.operators.items()),
            "",
            _convolutions([*self.binary_convolutions, *self.float_convolutions]),
            "",
            _work(self),
            "",
            f"binary convolutions: {len(self.binary_convolutions)} ({packed} write bitpacked output)",
            f"other convolutions: {len(self.float_convolutions)}",
            f"binary share of MACs: {self.share_text}",
            f"1-bit values unpacked to float: {self.pairs}",
            f"silent fallbacks: {len(self.silent_fallbacks)}",
        ]
        lines += [f"  {fallback}" for fallback in self.silent_fallbacks[:_MOST_ROWS]]
        return "\n".join(lines)


def _convolutions(convolutions: list[AuditedConvolution]) -> str:
    rows = [
        (c.name, c.operator, by(c.input), by(c.kernel), c.groups, c.bits, f"{c.macs:,}", c.weight_bytes, c.output)
        for c in sorted(convolutions, key=lambda c: not c.is_binary)[:_MOST_ROWS]
    ]
    columns = ("layer", "operator", ">input", ">kernel", ">groups", ">bits", ">MACs", ">weight bytes", "output")
    table = tables.render(columns, rows)
    left_out = len(convolutions) - len(rows)
    return f"{table}\nand {left_out:,} more, which the JSON lists" if left_out else table


def _work(found: Audit) -> str:
    """Estimated instructions by type of operator, the most expensive first."""
    totals: dict[str, list[float]] = {}
    for work in found.work:
        sums = totals.setdefault(work.operator, [0, *(0.0 for _ in DEVICES)])
        sums[0] += 1
        for k, device in enumerate(DEVICES, 1):
            sums[k] += work.instructions[device] or 0.0
    rows = [
        (name, int(count), *("not measured" if name in found.not_measured else tables.count(cost, 4) for cost in costs))
        for name, (count, *costs) in sorted(totals.items(), key=lambda item: -item[1][1])[:_MOST_ROWS]
    ]
    title = f"instructions of one inference, an estimate and not a latency: {found.instructions_text}"
    table = tables.render(("operator", ">times", *(f">{name}" for name in DEVICES.values())), rows)
    return f"{title}\n\n{table}"


def inspect(path: str | os.PathLike[str]) -> Audit:
    """Audits any .tflite file, made by kbnn or not, without TensorFlow or the interpreter.

    Raises:
        UsageError: there is no such file.
        KbnnError: it is empty, truncated, damaged or not a TFLite file.

    Example:
        >>> audit = kbnn.converters.inspect("model.tflite")
        >>> audit.binary_share, audit.silent_fallbacks
    """
    return audit(flatbuffer.read(path), os.fspath(path))


def audit(file: File, path: str = "the file") -> Audit:
    """Audits a file that has been read; see `inspect`."""
    try:
        return _audit(file, path)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise KbnnError(
            f"cannot audit '{path}': its operators do not match ({error}); convert the model again"
        ) from error


def _audit(file: File, path: str) -> Audit:
    costs = {operator.index: convolution(file, operator) for operator in file.operators if multiplies(operator)}
    binary = [c for c in costs.values() if c.is_binary]
    others = [c for c in costs.values() if not c.is_binary]
    binary_macs, float_macs = sum(c.macs for c in binary), sum(c.macs for c in others)
    counts = collections.Counter(operator.name for operator in file.operators)
    not_counted = {name: counts[name] for name in sorted(counts) if not _is_countable(name)}
    work = [_operator_work(file, operator, costs) for operator in file.operators if operator.operands]
    return Audit(
        path=path,
        size_bytes=file.size_bytes,
        operators=dict(sorted(counts.items())),
        binary_convolutions=binary,
        float_convolutions=others,
        binary_macs=binary_macs,
        float_macs=float_macs,
        binary_share=None if not_counted else binary_macs / max(1, binary_macs + float_macs),
        silent_fallbacks=silent_fallbacks(file),
        pairs=counts["LceDequantize"],
        inputs={name: tensor.shape for name, tensor in file.inputs.items()},
        outputs={name: tensor.shape for name, tensor in file.outputs.items()},
        not_counted=not_counted,
        work=work,
        instructions={device: sum(each.instructions[device] or 0.0 for each in work) for device in DEVICES},
    )


def _is_countable(name: str) -> bool:
    """Whether the MACs of an operator are known: those of built-in ones that do not multiply matrices are zero."""
    if name in LCE_OPERATORS:
        return True
    return name in flatbuffer.builtin_names() and name not in _CONTROL and not name.startswith("STABLEHLO_")


def _operator_work(file: File, operator: Operator, costs: dict[int, AuditedConvolution]) -> Work:
    cost = costs.get(operator.index)
    name = layer_name(file, operator) if operator.outputs else ""
    load = _load(file, operator, cost)
    return Work(name, operator.name, 0 if cost is None else cost.macs, instructions(load))


def audited_loads(file: File) -> list[Load]:
    """What each operator of a file has to do, in execution order."""
    return [
        _load(file, operator, convolution(file, operator) if multiplies(operator) else None)
        for operator in file.operators
        if operator.operands
    ]


def _load(file: File, operator: Operator, cost: AuditedConvolution | None) -> Load:
    count = worked_values(operator)
    if cost is None or not is_convolution(operator):
        types = operator.operands[0].dtype
        return Load(operator.name, types, macs=0 if cost is None else cost.macs, values=count)
    if cost.is_binary:
        height, width, channels, _ = cost.kernel
        # The kernels work on whole words of 64 channels.
        padded = cost.macs // max(1, channels) * _BGEMM_CHANNELS * -(-channels // _BGEMM_CHANNELS)
        copies = positions(operator) * height * width if height * width > 1 else 0
        return Load(operator.name, "bits", "bits", _binary_kernel(cost), padded, count, copies)
    # Weights behind a DEQUANTIZE are float when they are multiplied.
    kernel = input_of(operator, 1)
    cases = ["few channels"] if cost.input[-1] <= FEW_CHANNELS else []
    if kernel.dtype == "float32" and any(_is_computed(file, tensor) for tensor in operator.inputs[1:3]):
        cases.append("without XNNPACK")
    if kernel.dtype == "int8" and data_input(operator).dtype == "float32" and len(kernel.scales) == 1:
        cases.append("one scale")
    return Load(operator.name, data_input(operator).dtype, kernel.dtype, ", ".join(cases), cost.macs, count)


def _binary_kernel(cost: AuditedConvolution) -> str:
    """Which of LCE's kernels runs a binary convolution; only the indirect one runs groups.

    It is portable C++ for large inputs, and wherever it writes bits.
    """
    if cost.groups == 1:
        return ""
    is_large = math.prod(cost.input) / cost.groups >= INDIRECT_LIMIT
    return "portable C++" if is_large or cost.output == "bitpacked" else "indirect"


def _is_computed(file: File, tensor: Tensor | None) -> bool:
    """Whether XNNPACK sees no constant in a kernel or bias: it looks through DEQUANTIZE only."""
    if tensor is None or tensor.data is not None:
        return False
    producer = file.producers.get(tensor.index)
    return producer is None or producer.name != "DEQUANTIZE"


def by(shape: tuple[int, ...]) -> str:
    """A shape as text, such as 3x3x64."""
    return "x".join(str(size) for size in shape)
