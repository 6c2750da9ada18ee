"""Names, shapes, scales, ranges and geometry of an operator of the file, and the error that refuses it."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from kbnn.converters.c import integer
from kbnn.converters.c.plan import Tensor, Window
from kbnn.converters.errors import ConversionError
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File, Operator

LARGEST_SIZE = 2**16 - 1
# Kernels, strides and padding are held in bytes.
MOST_PADDING = 255
# The ranges that TensorFlow Lite's fused activations clip to, by number.
ACTIVATIONS: dict[int, tuple[float, float]] = {
    0: (-math.inf, math.inf),
    1: (0.0, math.inf),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
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


def named_after_layer(file: File, operator: Operator) -> Operator:
    """An operator whose output has the name of the QUANTIZE that follows, if the converter had no name for it."""
    output = operator.outputs[0] if operator.outputs else None
    if output is None or not output.name.startswith(_UNNAMED):
        return operator
    readers = file.consumers.get(output.index, [])
    if len(readers) != 1 or readers[0].name != "QUANTIZE":
        return operator
    named = dataclasses.replace(output, name=readers[0].outputs[0].name)
    return dataclasses.replace(operator, outputs=(named, *operator.outputs[1:]))


def sample_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Height, width and channels of one sample: a signal has one row, a vector one pixel."""
    if not 2 <= len(shape) <= 4 or shape[0] != 1 or not 1 <= min(shape) <= max(shape) <= LARGEST_SIZE:
        return None
    height, width, channels = (1,) * (4 - len(shape)) + shape[1:]
    return height, width, channels


def quantization(operator: Operator, item: flatbuffer.Tensor) -> tuple[float, int]:
    if len(item.scales) != 1 or len(item.zero_points) != 1:
        raise refused(operator, f"'{item.name}' has {len(item.scales)} scales")
    return item.scales[0], item.zero_points[0]


def is_per_channel(item: flatbuffer.Tensor, channels: int) -> bool:
    """Whether a constant is one value, or one value per channel in the last axis."""
    size = math.prod(item.shape)
    return size == 1 or (size == channels and item.shape[-1] == channels)


def clipping_of(operator: Operator, output: Tensor) -> tuple[int, int]:
    """The int8 range of an operator with its fused activation."""
    return levels_between(output, *fused_activation(operator))


def fused_activation(operator: Operator, option: str = "fusedActivationFunction") -> tuple[float, float]:
    """The range that an operator's fused activation clips to."""
    number = operator.options.get(option) or 0
    if number not in ACTIVATIONS:
        raise refused(operator, f"it has the fused activation {number}")
    return ACTIVATIONS[number]


def levels_between(output: Tensor, low: float, high: float) -> tuple[int, int]:
    """The int8 levels of a range."""
    scale = np.float32(output.scale)
    levels = [
        limit if math.isinf(limit) else float(integer.rounded(np.array([limit], np.float32) / scale)[0])
        for limit in (low, high)
    ]
    bounds = [level + output.zero_point for level in levels]
    return int(max(integer.LOW, bounds[0])), int(min(integer.HIGH, bounds[1]))


def option_of(options: flatbuffer.Attributes, *names: str) -> int:
    return next((int(options[name]) for name in names if options.get(name)), 1)


@dataclass(frozen=True)
class Geometry:
    """Kernel, strides, dilations and padding of an operator that slides over the image."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[int, int]
    is_padded: bool

    @staticmethod
    def of(operator: Operator, image: Tensor, kernel: tuple[int, int], output: tuple[int, ...]) -> "Geometry":
        options = operator.options
        strides = (option_of(options, "strideH", "stride_height"), option_of(options, "strideW", "stride_width"))
        dilations = (
            option_of(options, "dilationHFactor", "dilation_height_factor"),
            option_of(options, "dilationWFactor", "dilation_width_factor"),
        )
        # 0 is SAME, 1 is VALID.
        same = not options.get("padding", 0)
        sizes = zip((image.height, image.width), kernel, strides, dilations, output[1:3], strict=True)
        missing = [max((out - 1) * stride + (k - 1) * d + 1 - size, 0) for size, k, stride, d, out in sizes]
        before = (missing[0] // 2, missing[1] // 2) if same else (0, 0)
        if max(*kernel, *strides, *dilations, *before) > MOST_PADDING:
            raise refused(operator, f"a kernel of {kernel} with strides {strides} is too large")
        return Geometry(kernel, strides, dilations, before, same and any(missing))

    @property
    def extent(self) -> int:
        """The rows from the first to the last that the kernel touches."""
        return (self.kernel[0] - 1) * self.dilations[0] + 1

    @property
    def fields(self) -> dict[str, int]:
        """Strides and padding, as every kernel's parameters name them."""
        (stride_y, stride_x), (pad_top, pad_left) = self.strides, self.padding
        return {"stride_y": stride_y, "stride_x": stride_x, "pad_top": pad_top, "pad_left": pad_left}

    def around(self, top: int, left: int) -> "Geometry":
        """The geometry including the zeros that a separate padding operator puts around the image."""
        return dataclasses.replace(self, padding=(self.padding[0] + top, self.padding[1] + left))

    def window(self, *, buffered: bool = False) -> Window:
        return Window(self.strides[0], self.extent, self.padding[0], buffered)

    def padded_width(self, width: int, out_width: int) -> int:
        """The columns of a row with all its padding."""
        reach = (out_width - 1) * self.strides[1] + (self.kernel[1] - 1) * self.dilations[1] + 1
        return max(self.padding[1] + width, reach)
