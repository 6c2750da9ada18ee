"""Building blocks of the networks, and the types of their options."""

from collections.abc import Callable
from typing import Annotated, Literal

import pydantic
import tensorflow as tf

from kbnn import quantizers
from kbnn.activations import HardTanh
from kbnn.errors import UsageError
from kbnn.layers import Maxout, ZeroPadChannels
from kbnn.methods import Method

# Multiplies every channel count.
Width = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
# Blocks per stage; the papers' networks have four stages, smaller ones may have fewer.
Blocks = Annotated[tuple[pydantic.PositiveInt, ...], pydantic.Field(min_length=1, max_length=4)]
# The layers before the first binary convolution; by default `cifar` or `imagenet`, depending on the image's size.
Stem = Literal["cifar", "imagenet", "narrow", "patches", "quicknet"]
# One shortcut per convolution (Bi-Real Net), one per two convolutions (ResNet), or none.
Shortcuts = Literal["bireal", "res", "none"]
# How a shortcut adds channels: average pooling and zeros, every second pixel and zeros (SiMaN's code), average pooling
# and a real-valued 1x1 convolution, or average pooling and repeated channels.
ShortcutType = Literal["A", "A_subsample", "B", "duplicate"]
# Activation after the stem's batch normalization.
StemActivation = Literal["none", "relu", "maxout"]
# Activation after each addition; by default the method's own.
Activation = Literal["none", "hard_tanh", "prelu", "rprelu", "maxout"]

# Name of a quantizer of activations, which replaces the method's.
Estimator = Annotated[str, pydantic.AfterValidator(lambda name: quantizers.find(name, "activation", "estimator").name)]

# By default, images up to this height and width get the CIFAR stem.
CIFAR_SIZE = 64


def channels(filters: int, width: float, multiple: int = 1) -> int:
    """The number of channels with a width multiplier, rounded to a multiple of `multiple`."""
    return max(1, round(filters * width / multiple)) * multiple


def stem_for(inputs: tf.Tensor, stem: Stem | None) -> Stem:
    """The given stem, or the one for the image's size.

    Raises:
        UsageError: no stem is given, and the image's size is unknown.
    """
    if stem is not None:
        return stem
    height, width = inputs.shape[1:3]
    if height is None or width is None:
        raise UsageError(f"the image's size is unknown: received {inputs.shape[1:]}, choose stem='cifar' or 'imagenet'")
    return "cifar" if max(height, width) <= CIFAR_SIZE else "imagenet"


def check_size(inputs: tf.Tensor, smallest: int) -> None:
    """Checks the size of the image, for networks without padding or with dense layers.

    Raises:
        UsageError: the size is unknown, or the height or width is less than `smallest` pixels.
    """
    if any(size is None or size < smallest for size in inputs.shape[1:3]):
        raise UsageError(
            f"needs images of a fixed size of at least {smallest}x{smallest} pixels: "
            f"received input_shape={tuple(inputs.shape[1:])}"
        )


def real_convolution(
    x: tf.Tensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    padding: str = "same",
    use_bias: bool = False,
    name: str,
) -> tf.Tensor:
    """A real-valued convolution, by default zero-padded and without bias."""
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def batch_normalization(x: tf.Tensor, *, name: str) -> tf.Tensor:
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def clip(x: tf.Tensor, *, name: str) -> tf.Tensor:
    """Clips to [-1, 1], as a real-valued replacement for the sign."""
    return HardTanh(name=name)(x)


def residual_stem(inputs: tf.Tensor, filters: int, stem: Stem | None, activation: StemActivation = "none") -> tf.Tensor:
    """The real-valued first convolution of a residual network, with batch normalization.

    `cifar`: 3x3, optionally followed by a ReLU or AdaBin's two-slope PReLU. `imagenet`: 7x7 at stride 2, followed by
    3x3 max pooling at stride 2 (He et al. 2016, table 1). `narrow`, `patches`, `quicknet`: for large images with less
    work, see `narrow_stem`, `patches_stem` and `quicknet_stem`.
    """
    chosen = stem_for(inputs, stem)
    if chosen in _CHEAPER_STEMS:
        return _CHEAPER_STEMS[chosen](inputs, filters)
    if chosen == "cifar":
        x = batch_normalization(real_convolution(inputs, filters, 3, name="stem_conv"), name="stem_bn")
        if activation == "maxout":
            return Maxout(name="stem_maxout")(x)
        return tf.keras.layers.ReLU(name="stem_relu")(x) if activation == "relu" else x
    x = real_convolution(inputs, filters, 7, strides=2, name="stem_conv")
    x = batch_normalization(x, name="stem_bn")
    return tf.keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)


def quicknet_stem(inputs: tf.Tensor, filters: int) -> tf.Tensor:
    """A quarter of the size with 1/13 of the 7x7 stem's multiply-accumulates (at 64 filters).

    3x3 convolution to a quarter of the filters at stride 2, batch normalization, ReLU; 3x3 depthwise convolution at
    stride 2, batch normalization; 1x1 convolution to all filters, batch normalization.

    Source: Bannink et al., Larq Compute Engine, MLSys 2021, QuickNet.
    """
    x = real_convolution(inputs, max(1, filters // 4), 3, strides=2, name="stem_conv1")
    x = tf.keras.layers.ReLU(name="stem_relu")(batch_normalization(x, name="stem_bn1"))
    x = tf.keras.layers.DepthwiseConv2D(
        3, strides=2, padding="same", use_bias=False, depthwise_initializer="he_normal", name="stem_conv2"
    )(x)
    x = real_convolution(batch_normalization(x, name="stem_bn2"), filters, 1, name="stem_conv3")
    return batch_normalization(x, name="stem_bn")


def narrow_stem(inputs: tf.Tensor, filters: int) -> tf.Tensor:
    """A quarter of the size with 1/9 of the 7x7 stem's multiply-accumulates (at 64 filters).

    3x3 convolution to three eighths of the filters at stride 2, batch normalization; 3x3 max pooling at stride 2; 1x1
    convolution to all filters, batch normalization. Not from a paper.
    """
    x = real_convolution(inputs, max(1, filters * 3 // 8), 3, strides=2, name="stem_conv1")
    x = batch_normalization(x, name="stem_bn1")
    x = tf.keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    return batch_normalization(real_convolution(x, filters, 1, name="stem_conv2"), name="stem_bn")


def patches_stem(inputs: tf.Tensor, filters: int) -> tf.Tensor:
    """A quarter of the size with 1/12 of the 7x7 stem's multiply-accumulates.

    4x4 convolution at stride 4, of patches that do not overlap, which equals a 1x1 convolution after space-to-depth;
    batch normalization.

    Source: Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, section 3.1, with smaller patches.
    """
    return batch_normalization(real_convolution(inputs, filters, 4, strides=4, name="stem_conv"), name="stem_bn")


_CHEAPER_STEMS: dict[str, Callable[[tf.Tensor, int], tf.Tensor]] = {
    "narrow": narrow_stem,
    "patches": patches_stem,
    "quicknet": quicknet_stem,
}


def shortcut(x: tf.Tensor, filters: int, strides: int, shortcut_type: ShortcutType, *, name: str) -> tf.Tensor:
    """The identity, or `x` with `filters` channels at a stride.

    `A`: average pooling, then channels of zeros. `A_subsample`: the same with every second pixel instead of pooling, as
    in SiMaN's and IR-Net's code. `B`: average pooling, a real-valued 1x1 convolution and batch normalization (Bi-Real
    Net, section 4.4). `duplicate`: average pooling, then repeated channels (ReActNet).

    Deviates from the paper: He et al. define option A with a stride, like `A_subsample`; `A` pools, like all other
    types.
    """
    if strides == 1 and x.shape[-1] == filters:
        return x
    if strides > 1 and shortcut_type == "A_subsample":
        # Max pooling with a window of one pixel subsamples, and the device supports it.
        x = tf.keras.layers.MaxPooling2D(1, strides=strides, name=f"{name}_subsample")(x)
    elif strides > 1:
        x = average_pool(x, strides, name=f"{name}_pool")
    if shortcut_type in ("A", "A_subsample"):
        return ZeroPadChannels(filters, name=f"{name}_pad")(x)
    if shortcut_type == "B":
        return batch_normalization(real_convolution(x, filters, 1, name=f"{name}_conv"), name=f"{name}_bn")
    return repeat_channels(x, filters, name=f"{name}_duplicate")


def average_pool(x: tf.Tensor, size: int, *, name: str) -> tf.Tensor:
    return tf.keras.layers.AveragePooling2D(size, padding="same", name=name)(x)


def max_pool(x: tf.Tensor, size: int, *, name: str) -> tf.Tensor:
    """Max pooling at stride 2, without padding."""
    return tf.keras.layers.MaxPooling2D(size, strides=2, name=name)(x)


def repeat_channels(x: tf.Tensor, filters: int, *, name: str) -> tf.Tensor:
    """Repeats all channels until there are `filters`."""
    if filters % x.shape[-1]:
        raise UsageError(f"{name} cannot repeat {x.shape[-1]} channels to {filters}: choose another width")
    copies = filters // x.shape[-1]
    return x if copies == 1 else tf.keras.layers.Concatenate(name=name)([x] * copies)


def residual_block(
    x: tf.Tensor,
    filters: int,
    strides: int,
    method: Method,
    shortcuts: Shortcuts,
    shortcut_type: ShortcutType,
    *,
    name: str,
) -> tf.Tensor:
    """Twice a sign, a binary 3x3 convolution and batch normalization, with one of three shortcut designs.

    All designs have the same kernels with the same names (Bi-Real Net, figure 6). The method's activation follows each
    addition.
    """
    entered = x
    for k, step in ((1, strides), (2, 1)):
        y = method.convolution(x, filters, 3, strides=step, name=f"{name}_conv{k}")
        y = batch_normalization(y, name=f"{name}_bn{k}")
        if shortcuts == "bireal":
            around = shortcut(x, filters, step, shortcut_type, name=f"{name}_shortcut{k}")
            y = tf.keras.layers.Add(name=f"{name}_add{k}")([y, around])
        if shortcuts == "res" and k == 2:
            around = shortcut(entered, filters, strides, shortcut_type, name=f"{name}_shortcut1")
            y = tf.keras.layers.Add(name=f"{name}_add2")([y, around])
        x = method.activation(y, name=f"{name}_act{k}")
    return x


def preactivation_block(
    x: tf.Tensor, filters: int, strides: int, method: Method, shortcut_type: ShortcutType, *, name: str
) -> tf.Tensor:
    """Twice batch normalization, a sign, a binary 3x3 convolution and an activation; one shortcut around both.

    XNOR-Net's order (section 3.2) in He et al.'s full pre-activation block, as in ML+BMA's tables 1 to 3.
    """
    entered = x
    for k, step in ((1, strides), (2, 1)):
        x = batch_normalization(x, name=f"{name}_bn{k}")
        x = method.convolution(x, filters, 3, strides=step, name=f"{name}_conv{k}")
        x = method.activation(x, name=f"{name}_act{k}")
    around = shortcut(entered, filters, strides, shortcut_type, name=f"{name}_shortcut1")
    return tf.keras.layers.Add(name=f"{name}_add2")([x, around])


def preactivation_end(x: tf.Tensor) -> tf.Tensor:
    """Batch normalization and ReLU after the last `preactivation_block`."""
    return tf.keras.layers.ReLU(name="features_relu")(batch_normalization(x, name="features_bn"))


def stages(blocks: tuple[int, ...]) -> list[tuple[int, int, str]]:
    """The stage (from 0), stride and name of every block. The first block of every later stage has stride 2."""
    return [
        (stage, 2 if stage > 0 and block == 0 else 1, f"stage{stage + 1}_block{block + 1}")
        for stage, count in enumerate(blocks)
        for block in range(count)
    ]


def classifier(x: tf.Tensor, classes: int, features_norm: bool = False) -> tf.Tensor:
    """Global average pooling, optional batch normalization, and a real-valued dense layer with float32 logits."""
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return logits(batch_normalization(x, name="pool_bn") if features_norm else x, classes)


def logits(x: tf.Tensor, classes: int) -> tf.Tensor:
    """The real-valued last layer, in float32 under every policy."""
    return tf.keras.layers.Dense(classes, dtype="float32", name="logits")(x)
