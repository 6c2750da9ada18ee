"""PresB-Net: shuffled grouped binary convolutions with shortcuts that are added and concatenated."""

from dataclasses import dataclass, replace
from typing import Literal

import tensorflow as tf

from kbnn import layers, quantizers
from kbnn.errors import UsageError
from kbnn.methods import Method
from kbnn.models import parts
from kbnn.models.registry import register
from kbnn.models.resnet import DEPTHS

GROUPS = 2

# Activation before a normalization.
Activation = Literal["biased_prelu", "rprelu", "relu", "none"]
# Biased PReLUs have one bias and slope per group (paper) or per channel.
PReLUScope = Literal["group", "channel"]
# Layer normalization of a convolution's whole output (paper), of each group with affine parameters (code), or none.
LayerNorm = Literal["whole", "group", "none"]
# The 1x1 convolution around an expanding block: binary, with a binary kernel and real-valued input (code), real-valued,
# or no shortcut.
BlockShortcut = Literal["binary", "binary_kernel", "real", "none"]
# The real-valued twin's replacement for the sign: none (paper), the sign itself (code), or a clip.
TwinActivation = Literal["none", "sign", "clip"]


@dataclass(frozen=True)
class PresBBlock:
    """Two half blocks and a shortcut around them: from `(B, H, W, C)` to the same shape, or to `(B, H/2, W/2, 2C)`.

    A half block shuffles the channels across the groups, shifts them, takes the sign, and convolves to half as many
    channels, followed by an activation, layer normalization, another activation and batch normalization. The result is
    added to the first half of the shuffled channels and concatenated with the second half; an RPReLU follows. In the
    first block of a stage, the first half block expands: its convolution keeps the number of channels, and the
    average-pooled channels are both added and concatenated. The shortcut is the input; in an expanding block, it is
    the batch-normalized 1x1 convolution of the average-pooled input.
    """

    method: Method
    activations: tuple[Activation, Activation]
    prelu_scope: PReLUScope
    layer_norm: LayerNorm
    batch_norm: bool
    block_shortcut: BlockShortcut
    output_norm: bool

    def __call__(self, x: tf.Tensor, expand: bool, *, name: str) -> tf.Tensor:
        y = self._expand(x, name=name) if expand else self._basic(x, 1, name=name)
        y = self._basic(y, 2, name=name)
        if not expand or self.block_shortcut != "none":
            around = self._shortcut(x, name=f"{name}_shortcut") if expand else x
            y = tf.keras.layers.Add(name=f"{name}_add")([y, around])
        return parts.batch_normalization(y, name=f"{name}_bn") if self.output_norm else y

    def _basic(self, x: tf.Tensor, k: int, *, name: str) -> tf.Tensor:
        """Adds the convolution's output to the first half of the shuffled channels and keeps the other half."""
        shuffled = layers.ChannelShuffle(GROUPS, name=f"{name}_shuffle{k}")(x)
        y = self._convolution(shuffled, x.shape[-1] // 2, 1, k, name=name)
        return self._joined(y, shuffled, k, name=name)

    def _expand(self, x: tf.Tensor, *, name: str) -> tf.Tensor:
        """Adds the convolution's output to the pooled channels, and concatenates these once more."""
        shuffled = layers.ChannelShuffle(GROUPS, name=f"{name}_shuffle1")(x)
        pooled = parts.average_pool(shuffled, 2, name=f"{name}_pool1")
        twice = parts.repeat_channels(pooled, 2 * x.shape[-1], name=f"{name}_duplicate1")
        y = self._convolution(shuffled, x.shape[-1], 2, 1, name=name)
        return self._joined(y, twice, 1, name=name)

    def _convolution(self, x: tf.Tensor, filters: int, strides: int, k: int, *, name: str) -> tf.Tensor:
        x = layers.ChannelShift(name=f"{name}_shift{k}")(x)
        y = self.method.convolution(x, filters, 3, strides=strides, groups=GROUPS, name=f"{name}_conv{k}")
        first = self._activation(self.activations[0], name=f"{name}_conv{k}_act")
        y = y if first is None else first(y)
        if self.layer_norm != "none" and self.batch_norm:
            second = self._activation(self.activations[1], name="activation")
            scope = "layer" if self.layer_norm == "whole" else "group"
            return layers.GroupAwareNormalization(GROUPS, scope, second, name=f"{name}_norm{k}")(y)
        if self.layer_norm != "none":
            whole = self.layer_norm == "whole"
            y = layers.GroupNormalization(1 if whole else GROUPS, affine=not whole, name=f"{name}_ln{k}")(y)
        second = self._activation(self.activations[1], name=f"{name}_ln{k}_act")
        y = y if second is None else second(y)
        return parts.batch_normalization(y, name=f"{name}_bn{k}") if self.batch_norm else y

    def _activation(self, kind: Activation, *, name: str) -> tf.keras.layers.Layer | None:
        if kind == "none":
            return None
        if kind == "relu":
            return tf.keras.layers.ReLU(name=name)
        if kind == "rprelu":
            return layers.RPReLU(name=name)
        return layers.BiasedPReLU(GROUPS if self.prelu_scope == "group" else None, name=name)

    def _joined(self, y: tf.Tensor, around: tf.Tensor, k: int, *, name: str) -> tf.Tensor:
        """Adds `y` to the first channels of `around` and keeps the others, with one padding and one addition."""
        y = layers.ZeroPadChannels(around.shape[-1], side="after", name=f"{name}_pad{k}")(y)
        y = tf.keras.layers.Add(name=f"{name}_add{k}")([y, around])
        return layers.RPReLU(name=f"{name}_act{k}")(y)

    def _shortcut(self, x: tf.Tensor, *, name: str) -> tf.Tensor:
        filters = 2 * x.shape[-1]
        x = parts.average_pool(x, 2, name=f"{name}_pool")
        if self.block_shortcut == "real":
            x = parts.real_convolution(x, filters, 1, name=f"{name}_conv")
        elif self.block_shortcut == "binary_kernel":
            x = replace(self.method, before=()).convolution(x, filters, 1, name=f"{name}_conv", input_quantizer=None)
        else:
            x = self.method.convolution(x, filters, 1, name=f"{name}_conv")
        return parts.batch_normalization(x, name=f"{name}_bn")


def presb(
    inputs: tf.Tensor,
    method: Method,
    classes: int,
    *,
    blocks: parts.Blocks = DEPTHS[18],
    width: parts.Width = 1.0,
    stem: parts.Stem | None = None,
    activations: tuple[Activation, Activation] = ("biased_prelu", "biased_prelu"),
    prelu_scope: PReLUScope = "group",
    layer_norm: LayerNorm = "whole",
    batch_norm: bool = True,
    block_shortcut: BlockShortcut = "binary",
    output_norm: bool = False,
    estimator: parts.Estimator | None = None,
    twin_activation: TwinActivation = "none",
) -> tf.Tensor:
    """Four stages of blocks at 128, 256, 512 and 1024 channels, twice ResNet's, with 3x3 convolutions in two groups.

    Measured costs: `docs/networks.md`.

    Args:
        blocks: blocks per stage, of two binary grouped 3x3 convolutions each.
        width: multiplies every channel count, rounded to multiples of 4.
        stem: `cifar` (3x3) or `imagenet` (7x7 at stride 2, max pooling), by default chosen by the image's size; or
            instead of the latter, with 1/9 to 1/13 of its multiply-accumulates, `narrow` (3x3, max pooling, 1x1),
            `patches` (4x4 at stride 4) or `quicknet` (3x3, depthwise 3x3, 1x1).
        activations: activations before layer and batch normalization: `biased_prelu`, `rprelu`, `relu` or `none`.
        prelu_scope: biased PReLUs have a bias and a slope per `group` (paper) or per `channel` (the authors' code).
        layer_norm: layer normalization of the `whole` output, of each `group` with affine parameters (code), or `none`.
        batch_norm: False for no batch normalization (table 5).
        block_shortcut: the 1x1 convolution where channels double: `binary`, `binary_kernel` (with real-valued input, as
            in the code; real-valued on the device), `real`, or `none` for no shortcut.
        output_norm: batch normalization after each block, as in the code.
        estimator: replaces the method's quantizer of activations, for example `ste` (paper) or `leaky_ste` (code).
        twin_activation: replaces the sign in method `float`: `none` (paper), `sign` (code) or `clip`.

    Source: Shin and Kim, PresB-Net, 2022, section "Proposed BNN model", figures 7 to 9, table 5.
    Deviates from the paper: its introduction normalizes each group, but its method section all channels together, which
    is the default here.
    """
    binarized = _method(method, estimator, twin_activation)
    block = PresBBlock(binarized, activations, prelu_scope, layer_norm, batch_norm, block_shortcut, output_norm)
    x = parts.residual_stem(inputs, parts.channels(128, width, multiple=2 * GROUPS), stem)
    for _, strides, name in parts.stages(blocks):
        x = block(x, expand=strides == 2, name=name)
    return parts.classifier(x, classes)


def _method(method: Method, estimator: parts.Estimator | None, twin_activation: TwinActivation) -> Method:
    """The method with another sign, or its real-valued twin with or without one.

    Raises:
        UsageError: the method has a layer after additions, where the network has an RPReLU.
    """
    if method.after is not None:
        raise UsageError(
            f"method '{method.name}' has a layer after each addition, where this network already has an RPReLU: choose "
            f"another method"
        )
    sign = None if estimator is None else quantizers.find(estimator, "activation", "estimator")
    if method.is_binary:
        return method if sign is None else replace(method, input_quantizer=sign)
    if twin_activation == "clip" or method.name != "float":
        return method
    if twin_activation == "none":
        return replace(method, before=())
    return replace(method, before=(), input_quantizer=sign or quantizers.LeakySteSign)


# Methods that do not fit PresB-Net and AresB-Net.
REFUSES = {
    "adabin": "an RPReLU follows each addition instead of its two-slope PReLU; use its quantizers alone: "
    "activations='adaptive' and kernels='equalized' with method 'presb'",
    "irnet": "an RPReLU follows each addition instead of its hard tanh; use its quantizers alone: activations='ede' "
    "and kernels='libra' with method 'presb'",
    "react": "its shifts and RPReLUs are already part of the network, choose method 'presb'",
}
for _depth, _published in (
    (10, {"CIFAR-10": "91.76", "CIFAR-100": "67.03"}),
    (18, {"CIFAR-10": "93.36", "CIFAR-100": "73.84", "ImageNet": "63.03"}),
    (34, {"CIFAR-10": "93.64", "CIFAR-100": "73.56"}),
):
    register(
        f"presb{_depth}",
        input_shape=(32, 32, 3),
        classes=100,
        summary=f"PresB-Net-{_depth}: shuffled convolutions in two groups, shortcuts added and concatenated.",
        method="presb",
        published=_published,
        refuses=REFUSES,
        blocks=DEPTHS[_depth],
    )(presb)
