"""DoReFa-Net's network for SVHN, which BNN+ trains on CIFAR-10, with binary convolutions."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register


@register(
    "dorefa_svhn",
    input_shape=(40, 40, 3),
    classes=10,
    summary="DoReFa-Net's SVHN network: seven convolutions, the first one real-valued.",
    method="bnnplus_r1",
    published={"CIFAR-10": "83.92 (BNN+)"},
)
def dorefa_svhn(inputs: tf.Tensor, method: Method, classes: int, *, width: parts.Width = 1.0) -> tf.Tensor:
    """Convolutions with 48 (5x5), 2 x 64, 3 x 128 (3x3) and 512 (5x5) channels; all but the first are normalized.

    Measured costs: `docs/networks.md`.

    Args:
        width: multiplies every channel count.

    Source: Zhou et al., DoReFa-Net, 2016, section 3; BNN+, section 4.
    Deviates from the paper: dropout comes before the sign, so that dropped values become +1.
    """
    parts.check_size(inputs, smallest=40)
    x = parts.real_convolution(inputs, parts.channels(48, width), 5, padding="valid", use_bias=True, name="conv1")
    x = parts.max_pool(x, 2, name="pool1")
    for k, filters, size, padding in (
        (2, 64, 3, "same"),
        (3, 64, 3, "same"),
        (4, 128, 3, "valid"),
        (5, 128, 3, "same"),
        (6, 128, 3, "valid"),
        (7, 512, 5, "valid"),
    ):
        x = method.activation(x, name=f"act{k - 1}")
        if k == 7:
            x = tf.keras.layers.Dropout(0.5, name="dropout")(x)
        x = method.convolution(x, parts.channels(filters, width), size, padding=padding, name=f"conv{k}")
        x = parts.batch_normalization(x, name=f"bn{k}")
        if k == 3:
            x = parts.max_pool(x, 2, name="pool3")
    x = tf.keras.layers.Flatten(name="flatten")(parts.clip(x, name="features"))
    return parts.logits(x, classes)
