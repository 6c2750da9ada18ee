"""The demo's network: a Bi-Real Net small enough for 8x8 images and a minute of training."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register


@register(
    "tiny",
    input_shape=(8, 8, 1),
    classes=10,
    summary="For the demo: a real-valued 3x3 stem, and four binary 3x3 convolutions with a shortcut each.",
)
def tiny(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    width: parts.Width = 1.0,
    shortcut_type: parts.ShortcutType = "B",
) -> tf.Tensor:
    """A stem with 32 channels, a Bi-Real block at 32 channels, one at 64 channels and half the size, and a classifier.

    Measured costs: `docs/networks.md`.

    Args:
        width: multiplies every channel count.
        shortcut_type: how the shortcut adds channels, see `resnet20`.
    """
    filters = parts.channels(32, width)
    x = parts.residual_stem(inputs, filters, "cifar")
    x = parts.residual_block(x, filters, 1, method, "bireal", shortcut_type, name="block1")
    x = parts.residual_block(x, 2 * filters, 2, method, "bireal", shortcut_type, name="block2")
    return parts.classifier(x, classes)
