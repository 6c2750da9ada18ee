"""ResNet-20 for CIFAR with 1-bit convolutions."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register


@register(
    "resnet20",
    input_shape=(32, 32, 3),
    classes=10,
    summary="ResNet-20 for CIFAR (16-32-64 channels), 18 binary 3x3 convolutions, Bi-Real shortcuts by default.",
    blocks=3,
)
def resnet_cifar(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    blocks: int = 3,
    width: float = 1.0,
    shortcuts: str = "bireal",
    shortcut_type: str = "B",
) -> tf.Tensor:
    """Three stages of `blocks` residual blocks at 16, 32 and 64 channels (He et al. 2016, section 4.2).

    Args:
        blocks: residual blocks per stage; the depth is `6 blocks + 2`.
        width: multiplies every channel count.
        shortcuts: `bireal` (one per convolution), `res` (one per two convolutions) or `none`.
        shortcut_type: `A` (pooled, zero-padded channels) or `B` (average pool, real 1x1 convolution, batch
            normalization).
    """
    parts.check_choice("resnet20", "shortcuts", shortcuts, parts.SHORTCUTS)
    parts.check_choice("resnet20", "shortcut_type", shortcut_type, parts.SHORTCUT_TYPES)
    x = parts.real_convolution(inputs, parts.channels(16, width), 3, name="stem_conv")
    x = parts.batch_normalization(x, name="stem_bn")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = parts.residual_block(
                x,
                parts.channels(filters, width),
                strides,
                method,
                shortcuts,
                shortcut_type,
                name=f"stage{stage}_block{block}",
            )
    return parts.classifier(x, classes)
