"""AlexNet with 1-bit convolutions and dense layers, as in XNOR-Net and BNN+."""

from typing import Literal

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register

# Three 3x3 max-poolings at stride 2, without padding, leave at least one pixel.
_SMALLEST = {"cifar": 15, "imagenet": 57}

Stem = Literal["cifar", "imagenet"]


@register(
    "alexnet",
    input_shape=(224, 224, 3),
    classes=1000,
    summary="AlexNet: five convolutions and three dense layers, the first and the last one real-valued.",
    method="bnnplus_r2",
    published={"ImageNet": "46.11 (BNN+)", "CIFAR-10": "87.30 (BNN+)"},
)
def alexnet(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    width: parts.Width = 1.0,
    stem: Stem | None = None,
) -> tf.Tensor:
    """96-256-384-384-256 channels, 4096 and 4096 units; batch normalization before each activation.

    Measured costs: `docs/networks.md`.

    Args:
        width: multiplies every channel and unit count.
        stem: `cifar` (first convolution 3x3) or `imagenet` (11x11 at stride 4); by default chosen by the image's size.

    Source: Rastegari et al., XNOR-Net, 2016, section 4; BNN+, section 4.
    Deviates from the paper: batch normalization comes before max pooling, so that the device can pool bits. The clip
    before the classifier is our addition.
    """
    chosen = parts.stem_for(inputs, stem)
    parts.check_size(inputs, _SMALLEST[chosen])
    kernel_size, strides = (3, 1) if chosen == "cifar" else (11, 4)
    x = parts.real_convolution(inputs, parts.channels(96, width), kernel_size, strides, name="conv1")
    x = parts.max_pool(parts.batch_normalization(x, name="bn1"), 3, name="pool1")
    for k, filters, size in ((2, 256, 5), (3, 384, 3), (4, 384, 3), (5, 256, 3)):
        x = method.activation(x, name=f"act{k - 1}")
        x = method.convolution(x, parts.channels(filters, width), size, name=f"conv{k}")
        x = parts.batch_normalization(x, name=f"bn{k}")
        if k in (2, 5):
            x = parts.max_pool(x, 3, name=f"pool{k}")
    x = tf.keras.layers.Flatten(name="flatten")(x)
    for k in (6, 7):
        x = method.activation(x, name=f"act{k - 1}")
        x = method.dense(x, parts.channels(4096, width), name=f"dense{k}")
        x = parts.batch_normalization(x, name=f"bn{k}")
    return parts.logits(parts.clip(x, name="features"), classes)
