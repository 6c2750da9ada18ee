"""Bi-Real Net's last step: kernels are ±1 and stay so, batch normalization finds its scale and statistics anew."""

from typing import Any

import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.layers.binarized import Binarized
from kbnn.training.built import require_built


class BatchNormRetraining(tf.keras.callbacks.Callback):
    """Replaces binary kernels by their signs and trains nothing but batch normalizations while `fit` runs.

    Afterwards the layers are as trainable as before; the kernels stay ±1.

    Raises:
        UsageError: when training starts, a kernel quantizer makes other signs of ±1 kernels than they have, or the
            model is not built.

    Example:
        >>> model.fit(x, y, epochs=1, callbacks=[kbnn.training.BatchNormRetraining()])

    Source: Liu et al., Bi-Real Net, 2018, section 3.3, "training algorithm", step 3.
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        require_built(self)
        sign_kernels(self.model)
        self._frozen = freeze_all_but_batch_norm(self.model)
        # What is trained was decided when the function was made.
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for layer in self._frozen:
            layer.trainable = True
        self.model.make_train_function(force=True)


def sign_kernels(model: tf.keras.Model) -> None:
    """Replaces the latent kernels of binary layers by the signs that the layers multiply with.

    Raises:
        UsageError: a kernel quantizer makes other signs of ±1 kernels than they have.
    """
    for layer in model.submodules:
        if not isinstance(layer, Binarized) or layer.kernel_quantizer is None:
            continue
        signs = tf.where(layer.binarized_kernel() >= 0, 1.0, -1.0)
        layer.latent_kernel.assign(signs)
        if tf.reduce_any((layer.binarized_kernel() >= 0) != (signs > 0)):
            raise UsageError(
                f"layer '{layer.name}' cannot keep ±1 kernels: its {type(layer.kernel_quantizer).__name__} makes "
                f"other signs of them; retrain batch normalization with a quantizer that takes the sign"
            )


def freeze_all_but_batch_norm(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Freezes every layer that is not a batch normalization, and returns those that were trainable."""
    frozen = [
        layer for layer in model.layers if layer.trainable and not isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    for layer in frozen:
        layer.trainable = False
    return frozen
