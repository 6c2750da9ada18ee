"""VGG-small for CIFAR with binary convolutions."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register


@register(
    "vgg_small",
    input_shape=(32, 32, 3),
    classes=10,
    summary="VGG-small: six 3x3 convolutions, the first one real-valued, and no hidden dense layers.",
    method="siman",
    published={"CIFAR-10": "92.5 (SiMaN)"},
)
def vgg_small(inputs: tf.Tensor, method: Method, classes: int, *, width: parts.Width = 1.0) -> tf.Tensor:
    """128-128-256-256-512-512 channels, batch normalization after each convolution, max pooling after every second one.

    Measured costs: `docs/networks.md`.

    Args:
        width: multiplies every channel count.

    Source: Zhang et al., LQ-Nets, 2018; SiMaN, section 4.
    Deviates from SiMaN's code, where max pooling precedes batch normalization and a PReLU follows it. Here, batch
    normalization comes first, so that the device can pool bits. The clip before the classifier is our addition.
    """
    parts.check_size(inputs, smallest=8)
    x = parts.real_convolution(inputs, parts.channels(128, width), 3, name="conv1")
    x = parts.batch_normalization(x, name="bn1")
    for k, filters in enumerate((128, 256, 256, 512, 512), start=2):
        x = method.activation(x, name=f"act{k - 1}")
        x = method.convolution(x, parts.channels(filters, width), 3, name=f"conv{k}")
        x = parts.batch_normalization(x, name=f"bn{k}")
        if k % 2 == 0:
            x = parts.max_pool(x, 2, name=f"pool{k}")
    x = tf.keras.layers.Flatten(name="flatten")(parts.clip(x, name="features"))
    return parts.logits(x, classes)
