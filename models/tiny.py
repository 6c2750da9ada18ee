"""The demo's network: a Bi-Real Net small enough for 8x8 images and a minute of training."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register


@register(
    "tiny",
    input_shape=(8, 8, 1),
    classes=10,
    summary="The demo's: a real 3x3 stem, four binary 3x3 convolutions with a shortcut each.",
)
def tiny(inputs: tf.Tensor, method: Method, classes: int, *, width: float = 1.0, shortcut_type: str = "B") -> tf.Tensor:
    """Stem to 32 channels, one Bi-Real block at 32 and one at 64 channels and half the size, classifier."""
    parts.check_choice("tiny", "shortcut_type", shortcut_type, parts.SHORTCUT_TYPES)
    x = parts.real_convolution(inputs, parts.channels(32, width), 3, name="stem_conv")
    x = parts.batch_normalization(x, name="stem_bn")
    x = parts.residual_block(x, parts.channels(32, width), 1, method, "bireal", shortcut_type, name="block1")
    x = parts.residual_block(x, parts.channels(64, width), 2, method, "bireal", shortcut_type, name="block2")
    return parts.classifier(x, classes)
