"""ResNet-20 for CIFAR with binary convolutions."""

import pydantic
import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register


@register(
    "resnet20",
    input_shape=(32, 32, 3),
    classes=10,
    summary="ResNet-20 for CIFAR (16-32-64 channels) in 1 bit: a shortcut around each binary convolution.",
    published={"CIFAR-10": "87.4 (SiMaN)"},
)
def resnet_cifar(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    blocks: pydantic.PositiveInt = 3,
    width: parts.Width = 1.0,
    shortcuts: parts.Shortcuts = "bireal",
    shortcut_type: parts.ShortcutType = "B",
    features_norm: bool = False,
    stem_activation: parts.StemActivation = "none",
    activation: parts.Activation | None = None,
) -> tf.Tensor:
    """Three stages of `blocks` residual blocks at 16, 32 and 64 channels.

    Measured costs: `docs/networks.md`.

    Args:
        blocks: residual blocks per stage; the depth is `6 blocks + 2`.
        width: multiplies every channel count.
        shortcuts: `bireal` (one per convolution), `res` (one per two, XNOR-Net's pre-activation) or `none`.
        shortcut_type: how shortcuts add channels: `A` (average pooling, zeros), `A_subsample` (every second pixel,
            zeros; the code of SiMaN and IR-Net), `B` (average pooling, real-valued 1x1 convolution, batch
            normalization) or `duplicate` (average pooling, repeated channels).
        features_norm: batch normalization before the classifier, as in SiMaN's code, but not its paper.
        stem_activation: activation after the stem's batch normalization: `relu`, as in SiMaN's code, but not its paper,
            or `maxout`, as in AdaBin's code.
        activation: activation after each addition (`none`, `hard_tanh`, `prelu`, `rprelu`, `maxout`); by default the
            method's own.

    Source: He et al., Deep residual learning, 2016, section 4.2.
    """
    method = method if activation is None else method.with_activation(activation)
    x = parts.residual_stem(inputs, parts.channels(16, width), "cifar", stem_activation)
    for stage, strides, name in parts.stages((blocks, blocks, blocks)):
        filters = parts.channels(16 * 2**stage, width)
        if shortcuts == "res":
            x = parts.preactivation_block(x, filters, strides, method, shortcut_type, name=name)
        else:
            x = parts.residual_block(x, filters, strides, method, shortcuts, shortcut_type, name=name)
    if shortcuts == "res":
        x = parts.preactivation_end(x)
    return parts.classifier(x, classes, features_norm)
