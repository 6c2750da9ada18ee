"""ReActNet in the form of a ResNet, as in the comparison of PresB-Net's paper."""

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
    """The stages of `bireal18` with shortcuts that repeat their channels; RSign and RPReLU come from method `react`.

    With another method, it is `bireal18` with `shortcut_type="duplicate"`.

    Measured costs: `docs/networks.md`.

    Args:
        blocks: residual blocks per stage, of two binary 3x3 convolutions each.
        width: multiplies every channel count.
        stem: `cifar` (3x3) or `imagenet` (7x7 at stride 2, max pooling), by default chosen by the image's size; or
            instead of the latter, with 1/9 to 1/13 of its multiply-accumulates, `narrow` (3x3, max pooling, 1x1),
            `patches` (4x4 at stride 4) or `quicknet` (3x3, depthwise 3x3, 1x1).

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
