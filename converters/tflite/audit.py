"""Audit: what a .tflite file really holds.

LCE turns a 1-bit convolution that it does not recognise into a float one without a word, so the file itself is read.
"""

import collections
import math
import os
import re
from dataclasses import dataclass

import numpy as np

from kbnn import tables
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.errors import KbnnError

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
_CHANNELS_PER_WORD = 32
# A filter of fewer weights can have one magnitude by chance.
_FEWEST_WEIGHTS = 8
# Operators that only move values, and those that scale or shift them by constants.
_MOVES = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "CONCATENATION", "SPLIT", "STRIDED_SLICE")
_SCALES = ("MUL", "ADD", "SUB", "DIV", "QUANTIZE", "DEQUANTIZE")
# What convolutions are called at the end of a name: numbered where it repeats, cut off where it is long.
_OPERATION = re.compile(r"/(Conv\w*|conv2d\w*|depthwise\w*|MatMul\w*)$")


@dataclass(frozen=True)
class Convolution:
    """One convolution or dense layer of a file.

    `kernel` is `(kh, kw, channels per group, filters)`; `bits` are those of the weights; `macs` are of one inference;
    `output` is "bitpacked" or the data type that it writes.
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
class Audit:
    """What `inspect` finds. `float_convolutions` are all that are not binary, int8 and dense ones included.

    `binary_share` is the share of binary MACs in all MACs; `silent_fallbacks` name the layers that look 1-bit and are
    not; `pairs` counts the places where 1-bit values are unpacked to float again.
    """

    path: str
    size_bytes: int
    operators: dict[str, int]
    binary_convolutions: list[Convolution]
    float_convolutions: list[Convolution]
    binary_macs: int
    float_macs: int
    binary_share: float
    silent_fallbacks: list[str]
    pairs: int
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]

    def __str__(self) -> str:
        convolutions = [*self.binary_convolutions, *self.float_convolutions]
        rows = [
            (c.name, c.operator, _by(c.input), _by(c.kernel), c.groups, c.bits, f"{c.macs:,}", c.weight_bytes, c.output)
            for c in sorted(convolutions, key=lambda c: not c.is_binary)
        ]
        columns = ("layer", "operator", ">input", ">kernel", ">groups", ">bits", ">MACs", ">weight bytes", "output")
        packed = sum(c.output == "bitpacked" for c in self.binary_convolutions)
        lines = [
            f"{self.path}: {tables.size(self.size_bytes)}",
            "operators: " + ", ".join(f"{name} {count}" for name, count in self.operators.items()),
            "",
            tables.render(columns, rows),
            "",
            f"binary convolutions: {len(self.binary_convolutions)} ({packed} write bitpacked output)",
            f"other convolutions: {len(self.float_convolutions)}",
            f"binary share of MACs: {self.binary_share:.2%} of {self.binary_macs + self.float_macs:,}",
            f"1-bit values unpacked to float: {self.pairs}",
            f"silent fallbacks: {len(self.silent_fallbacks)}",
        ]
        return "\n".join([*lines, *(f"  {fallback}" for fallback in self.silent_fallbacks)])


def inspect(path: str | os.PathLike[str]) -> Audit:
    """Audits any .tflite file, made by kbnn or not; neither TensorFlow nor the interpreter is needed.

    Raises:
        UsageError: there is no such file.
        KbnnError: it is empty, truncated, damaged or no TFLite file.

    Example:
        >>> audit = kbnn.converters.inspect("model.tflite")
        >>> audit.binary_share, audit.silent_fallbacks
    """
    return audit(flatbuffer.read(path), os.fspath(path))


def audit(file: File, path: str = "the file") -> Audit:
    """`inspect` for a file that is read already."""
    try:
        return _audit(file, path)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise KbnnError(f"cannot audit '{path}': its operators do not fit together ({error}); convert again") from error


def is_convolution(operator: Operator) -> bool:
    return operator.name == "LceBconv2d" or operator.name in CONVOLUTIONS


def data_input(operator: Operator) -> Tensor:
    """What a convolution convolves."""
    tensor = operator.inputs[2 if operator.name == "TRANSPOSE_CONV" else 0]
    if tensor is None:
        raise ValueError(f"{operator.name} without an input")
    return tensor


def weights(file: File, operator: Operator) -> Tensor:
    """A convolution's kernel as it is stored: also that of int8 weights which the file dequantizes."""
    tensor = operator.inputs[1]
    if tensor is None:
        raise ValueError(f"{operator.name} without weights")
    producer = file.producers.get(tensor.index)
    stored = producer.inputs[0] if producer is not None and producer.name == "DEQUANTIZE" else None
    return stored or tensor


def convolution(file: File, operator: Operator) -> Convolution:
    """The shapes and costs of a convolution or dense operator."""
    source, stored, output = data_input(operator), weights(file, operator), operator.outputs[0]
    is_binary = operator.name == "LceBconv2d"
    channels = operator.options["channels_in"] if is_binary else source.shape[-1]
    kernel = _kernel(operator.name, stored.shape, channels)
    groups = 1 if operator.name == "DEPTHWISE_CONV_2D" else channels // kernel[2]
    positions = source.shape if operator.name == "TRANSPOSE_CONV" else output.shape
    return Convolution(
        name=layer_name(file, operator),
        operator=operator.name,
        input=(*source.shape[:-1], channels),
        kernel=kernel,
        strides=_strides(operator),
        groups=channels if operator.name == "DEPTHWISE_CONV_2D" else groups,
        bits=1 if is_binary else np.dtype(stored.dtype).itemsize * 8,
        macs=math.prod(positions[:-1]) * math.prod(kernel),
        weight_bytes=stored.size_bytes + sum(tensor.size_bytes for tensor in operator.inputs[2:] if tensor is not None),
        output="bitpacked" if is_binary and output.dtype == "int32" else output.dtype,
    )


def layer_name(file: File, operator: Operator) -> str:
    """The Keras layer that a convolution was, as far as the file's names tell."""
    kernel = weights(file, operator).name
    if kernel.endswith("/kernel"):
        return kernel.removesuffix("/kernel")
    output, source = operator.outputs[0].name, data_input(operator).name
    for piece in [*output.split(";"), *kernel.split(";")]:
        if _OPERATION.search(piece):
            return _inside_model(piece.rpartition("/")[0])
    # A binary layer's input quantizer runs in the layer's own scope: "model/layer/ste_sign/Sign".
    scopes = source.split(";")[0].split("/")
    if operator.name == "LceBconv2d" and len(scopes) > 2:
        return _inside_model("/".join(scopes[:-2]))
    returned = (name for name, tensor in file.outputs.items() if tensor.index == operator.outputs[0].index)
    return next(returned, output)


def _inside_model(path: str) -> str:
    """Keras begins each path with the model's name."""
    return path.partition("/")[2] or path


def _audit(file: File, path: str) -> Audit:
    convolutions = [convolution(file, operator) for operator in file.operators if is_convolution(operator)]
    binary = [c for c in convolutions if c.is_binary]
    others = [c for c in convolutions if not c.is_binary]
    binary_macs, float_macs = sum(c.macs for c in binary), sum(c.macs for c in others)
    return Audit(
        path=path,
        size_bytes=file.size_bytes,
        operators=dict(sorted(collections.Counter(operator.name for operator in file.operators).items())),
        binary_convolutions=binary,
        float_convolutions=others,
        binary_macs=binary_macs,
        float_macs=float_macs,
        binary_share=binary_macs / max(1, binary_macs + float_macs),
        silent_fallbacks=_fallbacks(file),
        pairs=sum(operator.name == "LceDequantize" for operator in file.operators),
        inputs={name: tensor.shape for name, tensor in file.inputs.items()},
        outputs={name: tensor.shape for name, tensor in file.outputs.items()},
    )


def _kernel(operator: str, shape: tuple[int, ...], channels: int) -> tuple[int, int, int, int]:
    """`(kh, kw, channels per group, filters)` from the order in which the operator stores them."""
    if operator == "FULLY_CONNECTED":
        filters, inputs = shape
        return 1, 1, inputs, filters
    filters, height, width, depth = shape
    if operator == "DEPTHWISE_CONV_2D":
        return height, width, 1, depth
    if operator == "LceBconv2d":
        return height, width, min(channels, depth * _CHANNELS_PER_WORD), filters
    return height, width, depth, filters


def _strides(operator: Operator) -> tuple[int, int]:
    options = operator.options
    if operator.name == "LceBconv2d":
        return options["stride_height"], options["stride_width"]
    return options.get("strideH", 1), options.get("strideW", 1)


def _fallbacks(file: File) -> list[str]:
    """The layers that look 1-bit and are float, each with what gives it away."""
    found = []
    for operator in file.operators:
        if operator.name not in CONVOLUTIONS:
            continue
        name, source = layer_name(file, operator), _origin(file, data_input(operator), _MOVES)
        if source is not None and source.name == "LceDequantize":
            found.append(f"{name}: {operator.name} reads 1-bit values that were unpacked to float")
        elif _has_binary_kernel(file, operator) and _origin(file, data_input(operator), _MOVES + _SCALES) is not None:
            found.append(f"{name}: {operator.name} has the kernel of a 1-bit layer, but its input is no sign")
    return found


def _origin(file: File, tensor: Tensor, through: tuple[str, ...]) -> Operator | None:
    """The operator that computed a tensor, behind those of `through`; None for the network's input."""
    producer = file.producers.get(tensor.index)
    steps = 0
    while producer is not None and producer.name in through and producer.operands and steps < len(file.operators):
        producer = file.producers.get(producer.operands[0].index)
        steps += 1
    return producer


def _has_binary_kernel(file: File, operator: Operator) -> bool:
    """Whether each filter is ±s."""
    stored = weights(file, operator)
    if stored.data is None or stored.dtype not in ("float32", "int8"):
        return False
    kernel = np.abs(stored.value().astype(np.float32))
    filters = np.moveaxis(kernel, -1, 0) if operator.name == "DEPTHWISE_CONV_2D" else kernel
    filters = filters.reshape(len(filters), -1)
    if filters.shape[1] < _FEWEST_WEIGHTS:
        return False
    # The converter takes magnitudes within 0.5 % for equal; so does this.
    smallest, largest = filters.min(1), filters.max(1)
    return bool(np.all(largest > 0) and np.all(largest - smallest <= 0.005 * largest))


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
