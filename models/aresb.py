"""AresB-Net, the network that PresB-Net extends and is compared with."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.presb import REFUSES, BlockShortcut, TwinActivation, presb
from kbnn.models.registry import register
from kbnn.models.resnet import DEPTHS


def aresb(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    blocks: parts.Blocks = DEPTHS[18],
    width: parts.Width = 1.0,
    stem: parts.Stem | None = None,
    block_shortcut: BlockShortcut = "none",
    estimator: parts.Estimator | None = None,
    twin_activation: TwinActivation = "none",
) -> tf.Tensor:
    """PresB-Net without layer normalization, biased PReLU and 1x1 shortcuts, the baseline of its paper.

    Measured costs: `docs/networks.md`.

    Args:
        blocks: blocks per stage, of two binary grouped 3x3 convolutions each.
        width: multiplies every channel count, rounded to multiples of 4.
        stem: as for `presb18`.
        block_shortcut: as for `presb18`, whose paper adds it "compared with existing ReActNet and AresB-Net".
        estimator: as for `presb18`.
        twin_activation: as for `presb18`.

    Source: Kim, AresB-Net, 2021; Shin and Kim, PresB-Net, 2022, sections "Basic and expand blocks" and "Experimental
    results".
    """
    return presb(
        inputs,
        method,
        classes,
        blocks=blocks,
        width=width,
        stem=stem,
        activations=("none", "none"),
        layer_norm="none",
        block_shortcut=block_shortcut,
        estimator=estimator,
        twin_activation=twin_activation,
    )


for _depth, _published in (
    (10, {"CIFAR-100": "65.41"}),
    (18, {"CIFAR-100": "70.91", "ImageNet": "54.8"}),
    (34, {"CIFAR-100": "71.63"}),
):
    register(
        f"aresb{_depth}",
        input_shape=(32, 32, 3),
        classes=100,
        summary=f"AresB-Net-{_depth}: PresB-Net without layer normalization, biased PReLU and 1x1 shortcuts.",
        method="presb",
        published=_published,
        refuses=REFUSES,
        blocks=DEPTHS[_depth],
    )(aresb)
