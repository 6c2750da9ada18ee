"""AresB-Net, the network that PresB-Net is built on and compared with."""

import tensorflow as tf

from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.presb import REFUSES, BlockShortcut, Estimator, TwinActivation, presb
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
    block_shortcut: BlockShortcut = "binary",
    estimator: Estimator | None = None,
    twin_activation: TwinActivation = "none",
) -> tf.Tensor:
    """PresB-Net without layer normalization and biased PReLU: the network that it is compared with.

    Networks (results/zoo.csv; parameters and MACs are binary + real):

      network   input            parameters              MACs      storage   .tflite   published top-1
     ──────────────────────────────────────────────────────────────────────────────────────────────────
      aresb10   32x32x3     5.407M + 128.1k   270.5M + 3.641M    9.51 Mbit   1.16 MB   CIFAR-100 65.41
      aresb10   224x224x3   5.407M + 1.066M   828.5M + 237.1M   39.52 Mbit   4.91 MB
      aresb18   32x32x3     11.67M + 147.3k   572.5M + 3.641M   16.39 Mbit   1.97 MB   CIFAR-100 70.91
      aresb18   224x224x3   11.67M + 1.085M   1.753G + 237.1M   46.40 Mbit   5.72 MB   ImageNet 54.8
      aresb34   32x32x3     21.77M + 184.4k   1.177G + 3.641M   27.68 Mbit   3.29 MB   CIFAR-100 71.63
      aresb34   224x224x3   21.77M + 1.122M   3.603G + 237.1M   57.69 Mbit   7.04 MB

    Args:
        blocks: blocks per stage, of two binary grouped 3x3 convolutions each.
        width: multiplies every channel count; they stay multiples of 4.
        stem: as `presb18`.
        block_shortcut: as `presb18`; AresB-Net's own paper has `none`.
        estimator: as `presb18`.
        twin_activation: as `presb18`.

    Source: Kim, AresB-Net, 2021; Shin and Kim, PresB-Net, 2022, section "Experimental results".
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
        summary=f"AresB-Net-{_depth}: PresB-Net without layer normalization and biased PReLU.",
        method="presb",
        published=_published,
        refuses=REFUSES,
        blocks=DEPTHS[_depth],
    )(aresb)
