"""Audit: what a .tflite file contains.

LCE silently falls back to float for a 1-bit convolution that it does not recognize, so the audit reads the file itself.
"""

import collections
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from kbnn import tables
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.estimate import DEVICES, Load, instructions
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.lce import CHANNELS_PER_WORD, INDIRECT_LIMIT
from kbnn.errors import KbnnError

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
_VOLUMES = ("CONV_3D", "CONV_3D_TRANSPOSE")
# Each of these multiplies all of its matrices by one vector per time step.
_RECURRENT = (
    "LSTM",
    "RNN",
    "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
)
# The operator does not tell what these run, or how often.
_CONTROL = ("WHILE", "IF", "CALL")
LCE_OPERATORS = ("LceQuantize", "LceDequantize", "LceBconv2d", "LceBMaxPool2d")
_BITS = {
    "float64": 64,
    "int64": 64,
    "float32": 32,
    "int32": 32,
    "float16": 16,
    "int16": 16,
    "int8": 8,
    "uint8": 8,
    "int4": 4,
}

_BGEMM_CHANNELS = 64
# The most input channels of a convolution that reads an image.
FEW_CHANNELS = 4
# With fewer weights a filter can have a single magnitude by chance.
_FEWEST_WEIGHTS = 8
# Operators that only move values, and those that scale or shift them by constants.
_MOVES = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "CONCATENATION", "SPLIT", "STRIDED_SLICE")
_SCALES = ("MUL", "ADD", "SUB", "DIV", "QUANTIZE", "DEQUANTIZE")
_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
# The ends of convolutions' names, which may have a number appended or be cut off.
_OPERATION = re.compile(r"/(Conv\w*|conv2d\w*|depthwise\w*|MatMul\w*)$")
# A hostile file can give many operators the same long name.
_LONGEST_NAME = 2000
_LONGEST_LABEL = 200
# Layers can share kernels; comparing all of them must still take time proportional to the file's size.
_KERNEL_BYTES_PER_BYTE = 16
_MOST_ROWS = 1000


@dataclass(frozen=True)
class AuditedConvolution:
    """One convolution, dense layer, matrix product or recurrent layer of a file.

    `kernel` is `(kh, kw, channels per group, filters)`, in three dimensions `(kd, kh, kw, channels per group,
    filters)`; for a matrix product the shape of the second factor, for a recurrent layer the number of weights. `bits`
    is the width of one weight, `macs` the number of multiply-accumulates per inference, and `output` "bitpacked" or the
    data type of the output.
    """

    name: str
    operator: str
    input: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, int]
    groups: int
    bits: int
    macs: int
    weight_bytes: int
    output: str

    @property
    def is_binary(self) -> bool:
        return self.operator == "LceBconv2d"


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


def is_convolution(operator: Operator) -> bool:
    """Whether an operator is a two-dimensional convolution or a dense layer."""
    return operator.name == "LceBconv2d" or operator.name in CONVOLUTIONS


def multiplies(operator: Operator) -> bool:
    """Whether the MACs of an operator are counted."""
    return is_convolution(operator) or operator.name in (*_VOLUMES, *_RECURRENT, "BATCH_MATMUL")


def data_input(operator: Operator) -> Tensor:
    """The activations that an operator multiplies with its weights."""
    return _input(operator, 2 if operator.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE") else 0)


def _input(operator: Operator, position: int) -> Tensor:
    tensor = operator.inputs[position] if position < len(operator.inputs) else None
    if tensor is None:
        raise ValueError(f"{operator.name} without input {position}")
    return tensor


def output(operator: Operator) -> Tensor:
    """The first output of an operator."""
    if not operator.outputs:
        raise ValueError(f"{operator.name} without an output")
    return operator.outputs[0]


def weights(file: File, operator: Operator) -> Tensor:
    """The kernel of a convolution as the file stores it, in int8 or int16 if the file dequantizes it."""
    if operator.name in _RECURRENT:
        # With coupled gates the first matrix is missing.
        return _matrices(file, operator)[0]
    return stored(file, _input(operator, 1))


def _matrices(file: File, operator: Operator) -> list[Tensor]:
    """The constant matrices of a recurrent operator.

    Raises:
        ValueError: there is none.
    """
    constants = [stored(file, tensor) for tensor in operator.inputs[1:] if tensor is not None]
    found = [tensor for tensor in constants if tensor.data is not None and len(tensor.shape) == 2]
    if not found:
        raise ValueError(f"{operator.name} without weights")
    return found


def stored(file: File, tensor: Tensor) -> Tensor:
    """The constant behind a tensor that the file dequantizes, and scales if it is int16; any other tensor itself."""
    producer = file.producers.get(tensor.index)
    if producer is not None and producer.name == "MUL" and len(producer.operands) == 1:
        dequantized = _dequantized(file, producer.operands[0])
        return dequantized if dequantized.data is not None else tensor
    return _dequantized(file, tensor)


def _dequantized(file: File, tensor: Tensor) -> Tensor:
    """The tensor that a file dequantizes to another one; any other tensor itself."""
    producer = file.producers.get(tensor.index)
    source = producer.inputs[0] if producer is not None and producer.name == "DEQUANTIZE" and producer.inputs else None
    return source or tensor


def values(operator: Operator) -> tuple[int, ...]:
    """The shape of an operator's output without the batch axis, counting values instead of words of 32 signs."""
    written = output(operator)
    if written.dtype != "int32" or not operator.name.startswith("Lce"):
        return written.shape[1:]
    channels = CHANNELS_PER_WORD * written.shape[-1]
    if operator.name == "LceBconv2d":
        channels = _input(operator, 1).shape[0]
    elif operator.name == "LceQuantize":
        channels = _input(operator, 0).shape[-1]
    return (*written.shape[1:-1], channels)


def worked_values(operator: Operator) -> int:
    """How many values an operator works on: those that it writes, or those that it reduces to fewer."""
    if not operator.outputs:
        return 0
    if operator.name in _REDUCTIONS:
        return math.prod(operator.operands[0].shape)
    # The first axis is the batch, or the filters where an operator computes weights.
    return math.prod((*output(operator).shape[:1], *values(operator)))


def convolution(file: File, operator: Operator) -> AuditedConvolution:
    """The shapes and costs of an operator that multiplies."""
    source, kept, written = data_input(operator), weights(file, operator), output(operator)
    is_binary = operator.name == "LceBconv2d"
    # The converter does not store the shape of a factor that it transposes; it follows from that of the other factor.
    channels = operator.options["channels_in"] if is_binary else (source.shape or kept.shape)[-1]
    kernel = _kernel(file, operator, channels)
    constants = [stored(file, tensor) for tensor in operator.inputs if tensor is not None]
    return AuditedConvolution(
        name=layer_name(file, operator),
        operator=operator.name,
        input=(*source.shape[:-1], channels),
        kernel=kernel,
        strides=_strides(operator),
        groups=_groups(operator.name, kernel, channels),
        bits=1 if is_binary else _bits(kept),
        macs=_positions(operator) * math.prod(kernel),
        weight_bytes=sum(tensor.size_bytes for tensor in constants),
        output="bitpacked" if is_binary and written.dtype == "int32" else written.dtype,
    )


def _bits(tensor: Tensor) -> int:
    if tensor.dtype not in _BITS:
        raise ValueError(f"weights of type {tensor.dtype}")
    return _BITS[tensor.dtype]


def _groups(name: str, kernel: tuple[int, ...], channels: int) -> int:
    if name == "DEPTHWISE_CONV_2D":
        return channels
    return channels // kernel[-2] if name in ("CONV_2D", "CONV_3D", "LceBconv2d") else 1


def _positions(operator: Operator) -> int:
    """How often the kernel is applied."""
    if operator.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE", *_RECURRENT):
        # Once per input position or time step.
        return math.prod(data_input(operator).shape[:-1])
    if operator.name == "BATCH_MATMUL":
        return math.prod(output(operator).shape[:-1])
    if operator.name == "FULLY_CONNECTED":
        kept, written = _input(operator, 1), output(operator).shape
        return math.prod(written) // max(1, (kept.shape or written[-1:])[0])
    return math.prod(output(operator).shape[:-1])


def layer_name(file: File, operator: Operator) -> str:
    """The Keras layer that an operator came from, as far as the names in the file tell."""
    name = _layer_name(file, operator)
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"


def _layer_name(file: File, operator: Operator) -> str:
    written = output(operator).name[:_LONGEST_NAME]
    if not is_convolution(operator):
        return _scope(file, written.split(";")[0])
    kernel, source = (tensor.name[:_LONGEST_NAME] for tensor in (weights(file, operator), data_input(operator)))
    if kernel.endswith("/kernel"):
        return kernel.removesuffix("/kernel")
    for piece in [*written.split(";"), *kernel.split(";")]:
        if _OPERATION.search(piece):
            return _inside_model(piece.rpartition("/")[0])
    # A binary layer's input quantizer runs in the layer's own scope: "model/layer/ste_sign/Sign".
    scopes = source.split(";")[0].split("/")
    if operator.name == "LceBconv2d" and len(scopes) > 2:
        return _inside_model("/".join(scopes[:-2]))
    return file.output_names.get(output(operator).index, written)


def _scope(file: File, name: str) -> str:
    """A value's name without the names of the model and the operation in Keras's "model/layer/Operation"."""
    if file.scope and name.startswith(f"{file.scope}/"):
        inside = name.removeprefix(f"{file.scope}/")
        return inside.rpartition("/")[0] or inside
    return name


def _inside_model(path: str) -> str:
    """A path without the model's name, with which Keras begins each path."""
    return path.partition("/")[2] or path


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
        silent_fallbacks=_fallbacks(file),
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
        copies = _positions(operator) * height * width if height * width > 1 else 0
        return Load(operator.name, "bits", "bits", _binary_kernel(cost), padded, count, copies)
    # Weights behind a DEQUANTIZE are float when they are multiplied.
    kernel = _input(operator, 1)
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


def _kernel(file: File, operator: Operator, channels: int) -> tuple[int, ...]:
    """The kernel's shape as `AuditedConvolution` describes it, from the order in which the operator stores it."""
    if operator.name in _RECURRENT:
        return (sum(math.prod(matrix.shape) for matrix in _matrices(file, operator)),)
    kept = weights(file, operator)
    shape = kept.shape
    if operator.name == "BATCH_MATMUL":
        if len(shape) < 2:
            raise ValueError(f"BATCH_MATMUL with a factor of shape {shape}")
        return (shape[-1], shape[-2]) if operator.options.get("adjY") else (shape[-2], shape[-1])
    if operator.name in _VOLUMES:
        depth, height, width, *ends = shape
        first, last = ends
        return (depth, height, width, *((first, last) if operator.name == "CONV_3D" else (last, first)))
    if operator.name == "FULLY_CONNECTED":
        filters, inputs = shape or (output(operator).shape[-1], channels)
        return 1, 1, inputs, filters
    filters, height, width, depth = shape
    if operator.name == "DEPTHWISE_CONV_2D":
        return height, width, 1, depth
    if operator.name == "LceBconv2d":
        return height, width, min(channels, depth * CHANNELS_PER_WORD), filters
    return height, width, depth, filters


def _strides(operator: Operator) -> tuple[int, int]:
    options = operator.options
    if operator.name == "LceBconv2d":
        return options["stride_height"], options["stride_width"]
    return options.get("strideH", 1), options.get("strideW", 1)


def _fallbacks(file: File) -> list[str]:
    """The layers that look 1-bit but are float, each with the evidence."""
    found = []
    moved, scaled = _origins(file, _MOVES), _origins(file, (*_MOVES, *_SCALES))
    is_binary = _BinaryKernels(file)
    for operator in file.operators:
        if operator.name not in CONVOLUTIONS:
            continue
        source = data_input(operator).index
        if source in moved and moved[source].name == "LceDequantize":
            evidence = f"{operator.name} reads 1-bit values that were unpacked to float"
        elif source in scaled and is_binary(operator):
            evidence = f"{operator.name} has the kernel of a 1-bit layer, but its input is not a sign"
        else:
            continue
        found.append(f"{layer_name(file, operator)}: {evidence}")
    return found


def _origins(file: File, through: Collection[str]) -> dict[int, Operator]:
    """Tensor index -> the operator that computed its values, looking through the operators named in `through`.

    The file's inputs have none. It takes one pass in execution order, so that cycles in a hostile file do no harm.
    """
    found: dict[int, Operator] = {}
    for operator in file.operators:
        origin: Operator | None = operator
        if operator.name in through and operator.operands:
            origin = found.get(operator.operands[0].index)
        for tensor in operator.outputs:
            if origin is None:
                found.pop(tensor.index, None)
            else:
                found[tensor.index] = origin
    return found


class _BinaryKernels:
    """Tells whether every filter of an operator's kernel is ±s; a kernel that layers share is examined once.

    Raises:
        ValueError: the kernels are far larger than the file, because many layers share bytes in different shapes.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._known: dict[tuple[object, ...], bool] = {}
        self._bytes_left = _KERNEL_BYTES_PER_BYTE * file.size_bytes

    def __call__(self, operator: Operator) -> bool:
        kernel = weights(self._file, operator)
        if kernel.data is None or kernel.dtype not in ("float32", "int8"):
            return False
        by_channel = operator.name == "DEPTHWISE_CONV_2D"
        key = (kernel.data.ctypes.data, kernel.size_bytes, kernel.shape, kernel.dtype, by_channel)
        if key not in self._known:
            self._bytes_left -= kernel.size_bytes
            if self._bytes_left < 0:
                raise ValueError(f"kernels of more than {_KERNEL_BYTES_PER_BYTE} times the size of the file")
            self._known[key] = _is_binary(kernel, by_channel)
        return self._known[key]


def _is_binary(stored: Tensor, by_channel: bool) -> bool:
    kernel = np.abs(stored.value().astype(np.float32))
    filters = np.moveaxis(kernel, -1, 0) if by_channel else kernel
    filters = filters.reshape(len(filters), -1)
    if filters.shape[1] < _FEWEST_WEIGHTS:
        return False
    # The converter, too, treats magnitudes within 0.5 % as equal.
    smallest, largest = filters.min(1), filters.max(1)
    return bool(np.all(largest > 0) and np.all(largest - smallest <= 0.005 * largest))


def by(shape: tuple[int, ...]) -> str:
    """A shape as text, such as 3x3x64."""
    return "x".join(str(size) for size in shape)
