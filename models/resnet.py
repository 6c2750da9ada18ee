"""ResNet-18 and -34 with 1-bit convolutions: Bi-Real Net and the two shortcut designs it is compared with."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register

DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def resnet(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    blocks: parts.Blocks = DEPTHS[18],
    width: parts.Width = 1.0,
    stem: parts.Stem | None = None,
    shortcuts: parts.Shortcuts = "bireal",
    shortcut_type: parts.ShortcutType = "B",
    features_norm: bool = False,
    activation: parts.Activation | None = None,
) -> tf.Tensor:
    """Four stages of residual blocks at 64, 128, 256 and 512 channels; stem, shortcuts and classifier stay real.

    Networks (results/zoo.csv; parameters and MACs are binary + real):

      network    input            parameters              MACs      storage   .tflite   published top-1
     ─────────────────────────────────────────────────────────────────────────────────────────────────────────
      bireal18   32x32x3     10.99M + 188.5k   547.4M + 8.066M   17.02 Mbit   2.14 MB   CIFAR-10 92.5 (SiMaN)
      bireal18   224x224x3     10.99M + 704k   1.676G + 137.8M   33.51 Mbit   4.20 MB   ImageNet 56.4
      bireal34   32x32x3     21.09M + 195.9k   1.151G + 8.066M   27.36 Mbit   3.45 MB
      bireal34   224x224x3   21.09M + 711.5k   3.526G + 137.8M   43.85 Mbit   5.51 MB   ImageNet 62.2
      plain18    32x32x3     10.99M + 14.67k   547.4M + 1.775M   11.45 Mbit   1.43 MB
      plain18    224x224x3   10.99M + 530.2k   1.676G + 118.5M   27.95 Mbit   3.49 MB   ImageNet 12.1
      plain34    32x32x3     21.09M + 22.09k   1.151G + 1.775M   21.79 Mbit   2.72 MB
      plain34    224x224x3   21.09M + 537.6k   3.526G + 118.5M   38.29 Mbit   4.77 MB   ImageNet 2.6
      resnet18   32x32x3     10.99M + 188.5k   547.4M + 8.066M   17.02 Mbit   2.13 MB
      resnet18   224x224x3     10.99M + 704k   1.676G + 137.8M   33.51 Mbit   4.19 MB   ImageNet 45.7
      resnet34   32x32x3     21.09M + 195.9k   1.151G + 8.066M   27.36 Mbit   3.43 MB
      resnet34   224x224x3   21.09M + 711.5k   3.526G + 137.8M   43.85 Mbit   5.49 MB   ImageNet 49.0

    Args:
        blocks: residual blocks per stage, of two binary 3x3 convolutions each.
        width: multiplies every channel count.
        stem: `cifar` (3x3) or `imagenet` (7x7 at stride 2, max-pooling); by the image's size when not given.
        shortcuts: `bireal` (one per convolution), `res` (one per two convolutions) or `none`.
        shortcut_type: how shortcuts get to more channels: `A` (average pool, zeros), `B` (average pool, real 1x1
            convolution, batch normalization) or `duplicate` (average pool, the channels again).
        features_norm: batch normalization before the classifier, as in SiMaN's code.
        activation: what follows each addition (`none`, `hard_tanh`, `prelu`, `rprelu`, `maxout`); the method's own
            when not given.

    Source: Liu et al., Bi-Real Net, 2018, sections 3 and 4.2, figure 6.
    """
    method = method if activation is None else method.with_activation(activation)
    x = parts.residual_stem(inputs, parts.channels(64, width), stem)
    for stage, strides, name in parts.stages(blocks):
        filters = parts.channels(64 * 2**stage, width)
        x = parts.residual_block(x, filters, strides, method, shortcuts, shortcut_type, name=name)
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
    ("resnet18", 18, "res", "bireal18's kernels, a shortcut around each two of them", {"ImageNet": "45.7"}),
    ("resnet34", 34, "res", "bireal34's kernels, a shortcut around each two of them", {"ImageNet": "49.0"}),
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
