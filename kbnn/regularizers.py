"""Penalties on latent kernels and on their scales, as pure functions and as Keras regularizers."""

import weakref
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kbnn.errors import UsageError


def median_loss(w: tf.Tensor) -> tf.Tensor:
    """How far the signs of a layer's weights are from half and half: abs(mean(W) - (mean(W₊) + mean(W₋))/2).

    W₊ are the positive and W₋ the negative weights of the whole layer; an empty side has mean 0. Equals
    abs((n₊ - n₋)/2n·(mean(W₊) - mean(W₋))) when no weight is zero: 0 exactly at n₊ = n₋.

    Example:
        >>> float(median_loss(tf.constant([3.0, -1.0, -1.0])))  # abs(1/3 - (3 - 1)/2) = 2/3

    Source: ML+BMA, equation 8.
    """
    w = tf.cast(w, tf.float32)
    return tf.abs(tf.reduce_mean(w) - (_mean_where(w, w > 0) + _mean_where(w, w < 0)) / 2)


def _mean_where(w: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    count = tf.reduce_sum(tf.cast(chosen, w.dtype))
    return tf.reduce_sum(tf.where(chosen, w, 0.0)) / tf.maximum(count, 1.0)


class Strength(tf.__internal__.tracking.AutoTrackable):
    """A factor λ that a schedule may change while a compiled training step runs: `regularizer.strength.assign(x)`.

    Tracked, so that checkpoints keep it; not a layer's weight, so that a regularizer changes no list of weights.
    """

    def __init__(self, strength: float) -> None:
        if not strength >= 0:
            raise UsageError(f"{type(self).__name__}: strength must not be negative, received {strength}")
        with tf.init_scope():
            self.strength = tf.Variable(strength, trainable=False, dtype=tf.float32, name="strength")

    def get_config(self) -> dict[str, Any]:
        return {"strength": float(self.strength.numpy())}


@tf.keras.utils.register_keras_serializable(package="kbnn")
class MedianLoss(Strength, tf.keras.regularizers.Regularizer):
    """The median loss of a network, λ/L·Σ over its L binarized layers: give one object to all of them.

    Loss of each layer: λ/L·abs(mean(W) - (mean(W₊) + mean(W₋))/2), see `median_loss`. The object counts the kbnn
    layers that were built with it; a saved or cloned layer's copy remembers that count. For other layers than kbnn's,
    state it.

    Args:
        strength: λ.
        layers: L; counted when not given.

    Example:
        >>> median_loss = kbnn.regularizers.MedianLoss(1e-4)
        >>> a = kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste_sign", kernel_regularizer=median_loss)
        >>> b = kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste_sign", kernel_regularizer=median_loss)

    Source: ML+BMA, equations 8 and 9.
    """

    def __init__(self, strength: float = 1e-4, layers: int | None = None) -> None:
        super().__init__(strength)
        if layers is not None and layers < 1:
            raise UsageError(f"MedianLoss: layers must be at least 1, received {layers}")
        self._stated_layers = layers
        self._attached: weakref.WeakSet[tf.keras.layers.Layer] = weakref.WeakSet()

    @property
    def layers(self) -> int:
        """L: the layers that share this penalty."""
        return self._stated_layers or max(len(self._attached), 1)

    def attach(self, layer: tf.keras.layers.Layer) -> None:
        """Counts a layer; kbnn's layers call this when they are built."""
        self._attached.add(layer)

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return self.strength / self.layers * median_loss(w)

    def get_config(self) -> dict[str, Any]:
        counted = len(self._attached) or None
        return {**super().get_config(), "layers": self._stated_layers or counted}


def manhattan(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """R1: Σ abs(α - abs(w)), α one number or one per filter.

    Example:
        >>> float(manhattan(tf.constant([1.0, -0.5, 0.0]), tf.constant(0.5)))  # 0.5 + 0 + 0.5

    Source: BNN+, equation 4.
    """
    return tf.reduce_sum(tf.abs(alpha - tf.abs(w)))


def euclidean(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """R2: Σ (α - abs(w))², α one number or one per filter.

    Example:
        >>> float(euclidean(tf.constant([1.0, -0.5, 0.0]), tf.constant(0.5)))  # 0.25 + 0 + 0.25

    Source: BNN+, equation 5.
    """
    return tf.reduce_sum(tf.square(alpha - tf.abs(w)))


@tf.keras.utils.register_keras_serializable(package="kbnn")
class Manhattan(Strength, tf.keras.regularizers.Regularizer):
    """λ·Σ abs(α - abs(w)), with a layer's learned scale α: for `scale_regularizer=`. Pulls weights and α together.

    Example:
        >>> penalty = kbnn.regularizers.Manhattan(5e-7)
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste_sign", scale="learned", scale_regularizer=penalty)

    Source: BNN+, equation 4; λ = 5e-7 on CIFAR-10, 1e-7 on ImageNet.
    """

    def __init__(self, strength: float = 5e-7) -> None:
        super().__init__(strength)

    def __call__(self, w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        return self.strength * manhattan(w, alpha)


@tf.keras.utils.register_keras_serializable(package="kbnn")
class Euclidean(Strength, tf.keras.regularizers.Regularizer):
    """λ·Σ (α - abs(w))², with a layer's learned scale α: for `scale_regularizer=`. Pulls weights and α together.

    Example:
        >>> penalty = kbnn.regularizers.Euclidean(5e-7)
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste_sign", scale="learned", scale_regularizer=penalty)

    Source: BNN+, equation 5; λ = 5e-7 on CIFAR-10, 1e-5 to 1e-7 on ImageNet.
    """

    def __init__(self, strength: float = 5e-7) -> None:
        super().__init__(strength)

    def __call__(self, w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        return self.strength * euclidean(w, alpha)


def binarized_kernels(model: tf.keras.layers.Layer) -> list[tf.Variable]:
    """The latent kernels of a model's 1-bit layers, Larq's own included: what weight decay usually leaves out.

    Example:
        >>> optimizer = tf.keras.optimizers.AdamW(weight_decay=1e-4)  # decoupled decay: AdamW, SGD(weight_decay=...)
        >>> optimizer.exclude_from_weight_decay(kbnn.regularizers.binarized_kernels(model))
        >>> kbnn.regularizers.add_weight_decay(model, 1e-4)  # as an L2 penalty
    """
    return [weight for weight in model.trainable_weights if getattr(weight, "precision", None) == 1]


def add_weight_decay(model: tf.keras.Model, weight_decay: float, exclude: Sequence[tf.Variable] | None = None) -> None:
    """Adds the L2 penalty ½·weight_decay·Σw² to a model's losses, whose gradient is weight_decay·w.

    It belongs to this model object and is not saved with it.

    Args:
        model: built.
        weight_decay: the papers' "weight decay", not negative.
        exclude: weights without a penalty; the binarized kernels by default, `()` for none.

    Raises:
        UsageError: a negative weight decay.

    Example:
        >>> kbnn.regularizers.add_weight_decay(model, 5e-4)  # SiMaN: not on binarized kernels
    """
    if not weight_decay >= 0:
        raise UsageError(f"weight_decay must not be negative, received {weight_decay}")
    left_out = {id(weight) for weight in (binarized_kernels(model) if exclude is None else exclude)}
    decayed = [weight for weight in model.trainable_weights if id(weight) not in left_out]
    model.add_loss(lambda: weight_decay * tf.add_n([tf.nn.l2_loss(weight) for weight in decayed]))
