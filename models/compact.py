"""Networks for microcontrollers: binary layers fill 32-bit words, and no feature map exceeds a quarter of the image."""

from typing import Annotated, Literal

import pydantic
import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register

Filters = Annotated[int, pydantic.Field(ge=32, multiple_of=32)]
# Number of real-valued convolutions before the first binary one.
StemLayers = Literal[1, 2]


@register(
    "compact32",
    input_shape=(32, 32, 3),
    classes=10,
    method="bnn",
    summary="For microcontrollers: 32-64 channels, maps up to 16x16, only stem and classifier with real weights.",
)
@register(
    "compact64",
    input_shape=(32, 32, 3),
    classes=10,
    method="bnn",
    summary="For larger microcontrollers: compact32's blocks at 64-128-256 channels.",
    filters=(64, 128, 256),
    blocks=(3, 3, 1),
)
def compact(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    filters: tuple[Filters, ...] = (32, 64),
    blocks: tuple[pydantic.PositiveInt, ...] = (4, 2),
    stem_layers: StemLayers = 1,
    shortcut_type: parts.ShortcutType = "duplicate",
    activation: parts.Activation | None = None,
) -> tf.Tensor:
    """A real-valued stem that halves the image, then stages of Bi-Real blocks, each at half the size of the previous.

    All operations run on LCE, in int8 and in plain C: 3x3 convolutions, additions, PReLU, average pooling and
    concatenation (shortcuts that repeat their channels need no weights), and one dense layer.

    Args:
        filters: channels of each stage, multiples of 32, so that binary layers use whole words.
        blocks: blocks per stage, of two binary 3x3 convolutions each.
        stem_layers: 1: a 3x3 convolution at stride 2. 2: a 3x3 convolution to half the channels and a ReLU before it.
        shortcut_type: how shortcuts add channels: `duplicate` (average pooling, repeated channels), `A` (zeros) or `B`
            (a real-valued 1x1 convolution and batch normalization).
        activation: activation after each addition; by default the method's own, or PReLU for methods without one.

    Example:
        >>> kbnn.models.build("compact32", filters=(32, 64, 64), blocks=(4, 3, 1))
    """
    if len(filters) != len(blocks):
        raise UsageError(
            f"filters and blocks need one value per stage: received {len(filters)} and {len(blocks)} values"
        )
    if activation is not None or method.after is None:
        method = method.with_activation(activation or "prelu")
    x = inputs
    if stem_layers == 2:
        x = parts.real_convolution(x, filters[0] // 2, 3, name="stem_conv0")
        x = tf.keras.layers.ReLU(name="stem_relu")(parts.batch_normalization(x, name="stem_bn0"))
    x = parts.real_convolution(x, filters[0], 3, strides=2, name="stem_conv")
    x = parts.batch_normalization(x, name="stem_bn")
    for (_, strides, name), channels in zip(parts.stages(blocks), _per_block(filters, blocks), strict=True):
        x = parts.residual_block(x, channels, strides, method, "bireal", shortcut_type, name=name)
    return parts.classifier(x, classes)


def _per_block(filters: tuple[int, ...], blocks: tuple[int, ...]) -> list[int]:
    """The number of channels of every block."""
    return [channels for channels, count in zip(filters, blocks, strict=True) for _ in range(count)]
