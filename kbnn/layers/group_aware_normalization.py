"""PresB-Net's normalization: each sample over its groups, then each channel over the batch."""

import tensorflow as tf

from kbnn._keras import Config, deserialize
from kbnn.errors import unknown
from kbnn.layers.biased_prelu import BiasedPReLU
from kbnn.layers.group_normalization import GroupNormalization

SCOPES = ("layer", "group")


@tf.keras.utils.register_keras_serializable(package="kbnn")
class GroupAwareNormalization(tf.keras.layers.Layer):
    """Layer normalization, an activation, then batch normalization: `(B, H, W, C)` to the same shape.

    y = BN(activation(LN(x))). LN is over (H, W, C) of each sample, so that the groups of a grouped convolution keep
    their differences but share one scale.

    Args:
        groups: number of groups of the preceding convolution.
        scope: "layer" normalizes all groups together, without affine parameters (the paper's method section); "group"
            normalizes each group separately, with them (the authors' code).
        activation: the layer between the two normalizations; by default a biased PReLU per group; None for no layer.
        momentum: momentum of the moving averages of the batch normalization.
        epsilon: ε of both normalizations.

    Raises:
        UsageError: an unknown scope or activation, or channels that cannot be split into this number of groups.

    Example:
        >>> kbnn.layers.GroupAwareNormalization(groups=2)(tf.zeros((1, 8, 8, 64)))

    Source: PresB-Net, section "Normalization", figures 4 to 6.
    """

    def __init__(
        self,
        groups: int = 2,
        scope: str = "layer",
        activation: tf.keras.layers.Layer | Config | str | None = "biased_prelu",
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        if scope not in SCOPES:
            raise unknown(f"scope of {self.name}", scope, SCOPES)
        self.groups = groups
        self.scope = scope
        self.momentum = momentum
        self.epsilon = epsilon
        self.layer_normalization = GroupNormalization(
            groups if scope == "group" else 1,
            affine=scope == "group",
            epsilon=epsilon,
            name="layer_normalization",
            dtype=self.dtype_policy,
        )
        self.activation = self._activation(activation)
        self.batch_normalization = tf.keras.layers.BatchNormalization(
            momentum=momentum,
            epsilon=epsilon,
            # With one replica, synchronizing changes nothing and is slower.
            synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1,
            name="batch_normalization",
            dtype=self.dtype_policy,
        )

    def _activation(self, identifier: tf.keras.layers.Layer | Config | str | None) -> tf.keras.layers.Layer | None:
        if identifier == "biased_prelu":
            return BiasedPReLU(self.groups, name="activation", dtype=self.dtype_policy)
        if isinstance(identifier, str):
            raise unknown(f"activation of {self.name}", identifier, ("biased_prelu",))
        return deserialize(identifier) if isinstance(identifier, dict) else identifier

    def build(self, input_shape: tf.TensorShape) -> None:
        for layer in (self.layer_normalization, self.activation, self.batch_normalization):
            if layer is not None:
                with tf.name_scope(layer.name):
                    layer.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        x = self.layer_normalization(inputs)
        if self.activation is not None:
            x = self.activation(x)
        return self.batch_normalization(x, training=training)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "groups": self.groups,
            "scope": self.scope,
            "activation": None if self.activation is None else tf.keras.layers.serialize(self.activation),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
