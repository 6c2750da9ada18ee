"""What the operators of a file compute: the names of their layers, shapes, weights and multiply-accumulates."""

import math
import re
from dataclasses import dataclass

from kbnn.converters.tflite.flatbuffer import File, Operator, Tensor
from kbnn.converters.tflite.lce import CHANNELS_PER_WORD

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
_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")
# The ends of convolutions' names, which may have a number appended or be cut off.
_OPERATION = re.compile(r"/(Conv\w*|conv2d\w*|depthwise\w*|MatMul\w*)$")
# A hostile file can give many operators the same long name.
_LONGEST_NAME = 2000
_LONGEST_LABEL = 200


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


def is_convolution(operator: Operator) -> bool:
    """Whether an operator is a two-dimensional convolution or a dense layer."""
    return operator.name == "LceBconv2d" or operator.name in CONVOLUTIONS


def multiplies(operator: Operator) -> bool:
    """Whether the MACs of an operator are counted."""
    return is_convolution(operator) or operator.name in (*_VOLUMES, *_RECURRENT, "BATCH_MATMUL")


def data_input(operator: Operator) -> Tensor:
    """The activations that an operator multiplies with its weights."""
    return input_of(operator, 2 if operator.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE") else 0)


def input_of(operator: Operator, position: int) -> Tensor:
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
    return stored(file, input_of(operator, 1))


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
        channels = input_of(operator, 1).shape[0]
    elif operator.name == "LceQuantize":
        channels = input_of(operator, 0).shape[-1]
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
        macs=positions(operator) * math.prod(kernel),
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


def positions(operator: Operator) -> int:
    """How often the kernel is applied."""
    if operator.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE", *_RECURRENT):
        # Once per input position or time step.
        return math.prod(data_input(operator).shape[:-1])
    if operator.name == "BATCH_MATMUL":
        return math.prod(output(operator).shape[:-1])
    if operator.name == "FULLY_CONNECTED":
        kept, written = input_of(operator, 1), output(operator).shape
        return math.prod(written) // max(1, (kept.shape or written[-1:])[0])
    return math.prod(output(operator).shape[:-1])


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
