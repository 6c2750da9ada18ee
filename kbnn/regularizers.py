"""Penalties on latent kernels and on their scales, as pure functions and as Keras regularizers."""

import weakref
from collections.abc import Sequence

import tensorflow as tf

from kbnn import structure
from kbnn._keras import Config, serializable
from kbnn.errors import UsageError


def median_loss(w: tf.Tensor) -> tf.Tensor:
    """The imbalance of the signs of a layer's weights: abs(mean(W) - (mean(W₊) + mean(W₋))/2).

    W₊ are the positive and W₋ the negative weights of the whole layer; an empty side has mean 0. If no weight is zero,
    this is abs((n₊ - n₋)/2n·(mean(W₊) - mean(W₋))), which is 0 at n₊ = n₋.

    Example:
        >>> float(median_loss(tf.constant([3.0, -1.0, -1.0])))  # abs(1/3 - (3 - 1)/2) = 2/3

    Source: ML+BMA, equation 8.
    """
    w = tf.cast(w, tf.float32)
    everywhere = tf.ones_like(w, tf.bool)
    return tf.abs(_mean_where(w, everywhere) - (_mean_where(w, w > 0) + _mean_where(w, w < 0)) / 2)


def _mean_where(w: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    count = tf.reduce_sum(tf.cast(chosen, w.dtype))
    # Divided before it is summed: the sum of huge weights would overflow.
    return tf.reduce_sum(tf.where(chosen, w / tf.maximum(count, 1.0), 0.0))


class AdjustablePenalty(tf.__internal__.tracking.AutoTrackable, tf.keras.regularizers.Regularizer):
    """A penalty with a factor λ that can change during training: `regularizer.strength.assign(x)`.

    λ is a variable, so that a schedule affects training steps that are already compiled. It is saved in checkpoints,
    but it is not one of the layer's weights.
    """

    def __init__(self, strength: float) -> None:
        if not strength >= 0:
            raise UsageError(f"{type(self).__name__}: strength must not be negative, received {strength}")
        with tf.init_scope():
            self.strength = tf.Variable(strength, trainable=False, dtype=tf.float32, name="strength")

    def get_config(self) -> Config:
        return {"strength": float(self.strength.numpy())}

    def fresh(self) -> "AdjustablePenalty":
        """The same penalty for the layers of another network, with a λ of its own."""
        return type(self).from_config(self.get_config())


@serializable
class MedianLoss(AdjustablePenalty):
    """The median loss of a network, λ/L·Σ over its L binarized layers, which share one object of this class.

    Loss of each layer: λ/L·abs(mean(W) - (mean(W₊) + mean(W₋))/2), see `median_loss`. The object counts the kbnn
    layers that are built with it, and copies in saved or cloned layers keep the count. For other layers, pass L.

    Args:
        strength: λ.
        layers: L; by default the number of kbnn layers built with this object.

    Example:
        >>> median_loss = kbnn.regularizers.MedianLoss(1e-4)
        >>> a = kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste", kernel_regularizer=median_loss)
        >>> b = kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste", kernel_regularizer=median_loss)

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
        """L, the number of layers that share this penalty."""
        return self._stated_layers or max(len(self._attached), 1)

    def attach(self, layer: tf.keras.layers.Layer) -> None:
        """Counts a layer. kbnn's layers call this when they are built."""
        self._attached.add(layer)

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return self.strength / self.layers * median_loss(w)

    def fresh(self) -> "MedianLoss":
        return type(self).from_config({**self.get_config(), "layers": self._stated_layers})

    def get_config(self) -> Config:
        counted = len(self._attached) or None
        return {**super().get_config(), "layers": self._stated_layers or counted}


def manhattan(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """R1: Σ abs(α - abs(w)), with one α or one per filter.

    Example:
        >>> float(manhattan(tf.constant([1.0, -0.5, 0.0]), tf.constant(0.5)))  # 0.5 + 0 + 0.5

    Source: BNN+, equation 4.
    """
    return tf.reduce_sum(tf.abs(alpha - tf.abs(w)))


def euclidean(w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """R2: Σ (α - abs(w))², with one α or one per filter.

    Example:
        >>> float(euclidean(tf.constant([1.0, -0.5, 0.0]), tf.constant(0.5)))  # 0.25 + 0 + 0.25

    Source: BNN+, equation 5.
    """
    return tf.reduce_sum(tf.square(alpha - tf.abs(w)))


@serializable
class Manhattan(AdjustablePenalty):
    """λ·Σ abs(α - abs(w)), with the learned scale α of a layer, for `scale_regularizer=`. Pulls weights and α together.

    Example:
        >>> penalty = kbnn.regularizers.Manhattan(5e-7)
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste", scale="learned", scale_regularizer=penalty)

    Source: BNN+, equation 4; λ = 5e-7 on CIFAR-10, 1e-7 on ImageNet.
    """

    def __init__(self, strength: float = 5e-7) -> None:
        super().__init__(strength)

    def __call__(self, w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        return self.strength * manhattan(w, alpha)


@serializable
class Euclidean(AdjustablePenalty):
    """λ·Σ (α - abs(w))², with the learned scale α of a layer, for `scale_regularizer=`. Pulls weights and α together.

    Example:
        >>> penalty = kbnn.regularizers.Euclidean(5e-7)
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer="ste", scale="learned", scale_regularizer=penalty)

    Source: BNN+, equation 5; λ = 5e-7 on CIFAR-10, 1e-5 to 1e-7 on ImageNet.
    """

    def __init__(self, strength: float = 5e-7) -> None:
        super().__init__(strength)

    def __call__(self, w: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        return self.strength * euclidean(w, alpha)


def binarized_kernels(model: tf.keras.Model) -> list[tf.Variable]:
    """The trainable latent kernels of a model's binary layers, kbnn's and Larq's, which weight decay usually skips.

    Example:
        >>> optimizer = tf.keras.optimizers.AdamW(weight_decay=1e-4)  # decoupled decay: AdamW, SGD(weight_decay=...)
        >>> optimizer.exclude_from_weight_decay(kbnn.regularizers.binarized_kernels(model))
        >>> kbnn.regularizers.add_weight_decay(model, 1e-4)  # as an L2 penalty
    """
    kernels = {id(kernel) for layer in structure.layers(model) for kernel, _ in structure.binary_kernels(layer)}
    return [weight for weight in model.trainable_weights if id(structure.latent(weight)) in kernels]


def binarized_weights(model: tf.keras.Model) -> list[tf.Variable]:
    """All trainable weights of layers with binary kernels: latent kernels, learned scales, and quantizers' parameters.

    Source: SiMaN, implementation details: binarized layers are trained without weight decay.
    """
    layers = [layer for layer in structure.layers(model) if structure.has_binary_kernel(layer)]
    weights = {id(weight): weight for layer in layers for weight in layer.trainable_weights}
    return list(weights.values())


def add_weight_decay(model: tf.keras.Model, weight_decay: float, exclude: Sequence[tf.Variable] | None = None) -> None:
    """Adds the L2 penalty ½·weight_decay·Σw² to a model's losses, whose gradient is weight_decay·w.

    The penalty belongs to this model object; it is not saved with the model.

    Args:
        model: a built model.
        weight_decay: the papers' "weight decay", non-negative.
        exclude: weights without a penalty; `binarized_weights(model)` by default, `()` for none.

    Raises:
        UsageError: a negative weight decay.

    Example:
        >>> kbnn.regularizers.add_weight_decay(model, 5e-4)  # SiMaN: not on binarized layers
    """
    if not weight_decay >= 0:
        raise UsageError(f"weight_decay must not be negative, received {weight_decay}")
    excluded = {id(weight) for weight in (binarized_weights(model) if exclude is None else exclude)}
    decayed = [weight for weight in model.trainable_weights if id(weight) not in excluded]
    if decayed:
        model.add_loss(lambda: weight_decay * tf.add_n([tf.nn.l2_loss(tf.cast(w, tf.float32)) for w in decayed]))
