"""ReActNet in the form of a ResNet, as PresB-Net's paper compares with it."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register
from kbnn.models.resnet import DEPTHS, resnet


def react(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    blocks: parts.Blocks = DEPTHS[18],
    width: parts.Width = 1.0,
    stem: parts.Stem | None = None,
) -> tf.Tensor:
    """`bireal18`'s stages with shortcuts that pool and repeat their channels; RSign and RPReLU are method react's.

    With another method it is `bireal18` with `shortcut_type="duplicate"`, ReActNet without what makes it one.

    Networks (results/zoo.csv; parameters and MACs are binary + real):

      network   input            parameters              MACs      storage    .tflite   published top-1
     ───────────────────────────────────────────────────────────────────────────────────────────────────
      react10   32x32x3     4.719M + 64.23k   245.4M + 1.821M    6.77 Mbit   832.7 kB   CIFAR-100 66.69
      react10   224x224x3   4.719M + 533.6k   751.4M + 118.5M   21.79 Mbit    2.71 MB
      react18   32x32x3     10.99M + 75.75k   547.4M + 1.821M   13.41 Mbit    1.64 MB   CIFAR-100 70.81
      react18   224x224x3   10.99M + 545.1k   1.676G + 118.5M   28.43 Mbit    3.51 MB
      react34   32x32x3     21.09M + 98.02k   1.151G + 1.821M   24.22 Mbit    2.95 MB   CIFAR-100 70.89
      react34   224x224x3   21.09M + 567.4k   3.526G + 118.5M   39.24 Mbit    4.82 MB

    Args:
        blocks: residual blocks per stage, of two binary 3x3 convolutions each.
        width: multiplies every channel count.
        stem: `cifar` (3x3) or `imagenet` (7x7 at stride 2, max-pooling); by the image's size when not given.

    Source: Liu et al., ReActNet, 2020, section 4.
    """
    return resnet(inputs, method, classes, blocks=blocks, width=width, stem=stem, shortcut_type="duplicate")


for _depth, _published in ((10, "66.69"), (18, "70.81"), (34, "70.89")):
    register(
        f"react{_depth}",
        input_shape=(32, 32, 3),
        classes=100,
        summary=f"ReActNet as a ResNet-{_depth}: RSign, RPReLU, shortcuts that repeat their channels.",
        method="react",
        published={"CIFAR-100": _published},
        blocks=DEPTHS[_depth],
    )(react)
