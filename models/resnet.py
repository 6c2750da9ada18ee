"""ResNet-18 and -34 with binary convolutions: Bi-Real Net and the two shortcut designs that it is compared with."""

from typing import Literal

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register

# As `parts.Shortcuts`, or XNOR-Net's pre-activation.
Shortcuts = Literal["bireal", "res", "preactivation", "none"]

DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def resnet(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    blocks: parts.Blocks = DEPTHS[18],
    width: parts.Width = 1.0,
    stem: parts.Stem | None = None,
    shortcuts: Shortcuts = "bireal",
    shortcut_type: parts.ShortcutType = "B",
    features_norm: bool = False,
    activation: parts.Activation | None = None,
) -> tf.Tensor:
    """Four stages of residual blocks at 64, 128, 256 and 512 channels; stem, shortcuts and classifier are real-valued.

    Measured costs: `docs/networks.md`.

    Args:
        blocks: residual blocks per stage, of two binary 3x3 convolutions each.
        width: multiplies every channel count.
        stem: `cifar` (3x3) or `imagenet` (7x7 at stride 2, max pooling), by default chosen by the image's size; or
            instead of the latter, with 1/9 to 1/13 of its multiply-accumulates, `narrow` (3x3, max pooling, 1x1),
            `patches` (4x4 at stride 4) or `quicknet` (3x3, depthwise 3x3, 1x1).
        shortcuts: `bireal` (one per convolution), `res` (one per two convolutions, Bi-Real Net's figure 6c),
            `preactivation` (one per two, with batch normalization before each sign, as in XNOR-Net and BNN+) or `none`.
        shortcut_type: how shortcuts add channels: `A` (average pooling, zeros), `A_subsample` (every second pixel,
            zeros), `B` (average pooling, real-valued 1x1 convolution, batch normalization) or `duplicate` (average
            pooling, repeated channels).
        features_norm: batch normalization before the classifier, as in SiMaN's code, but not its paper.
        activation: activation after each addition (`none`, `hard_tanh`, `prelu`, `rprelu`, `maxout`); by default the
            method's own.

    Source: Liu et al., Bi-Real Net, 2018, sections 3 and 4.2, figure 6.
    """
    method = method if activation is None else method.with_activation(activation)
    x = parts.residual_stem(inputs, parts.channels(64, width), stem)
    for stage, strides, name in parts.stages(blocks):
        filters = parts.channels(64 * 2**stage, width)
        if shortcuts == "preactivation":
            x = parts.preactivation_block(x, filters, strides, method, shortcut_type, name=name)
        else:
            x = parts.residual_block(x, filters, strides, method, shortcuts, shortcut_type, name=name)
    if shortcuts == "preactivation":
        x = parts.preactivation_end(x)
    return parts.classifier(x, classes, features_norm)


for _name, _depth, _shortcuts, _summary, _published in (
    (
        "bireal18",
        18,
        "bireal",
        "a shortcut around each binary convolution",
        {"CIFAR-10": "92.5 (SiMaN)", "ImageNet": "56.4"},
    ),
    ("bireal34", 34, "bireal", "a shortcut around each binary convolution", {"ImageNet": "62.2"}),
    ("resnet18", 18, "res", "bireal18's kernels with a shortcut around every two of them", {"ImageNet": "45.7"}),
    ("resnet34", 34, "res", "bireal34's kernels with a shortcut around every two of them", {"ImageNet": "49.0"}),
    ("plain18", 18, "none", "bireal18's kernels without shortcuts", {"ImageNet": "12.1"}),
    ("plain34", 34, "none", "bireal34's kernels without shortcuts", {"ImageNet": "2.6"}),
):
    register(
        _name,
        input_shape=(224, 224, 3),
        classes=1000,
        summary=f"ResNet-{_depth} in 1 bit: {_summary}.",
        published=_published,
        blocks=DEPTHS[_depth],
        shortcuts=_shortcuts,
    )(resnet)
