"""Constraints on trainable parameters."""

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="kbnn")
class Positive(tf.keras.constraints.Constraint):
    """Keeps a parameter at or above `minimum` > 0: max(x, minimum)."""

    def __init__(self, minimum: float = 1e-6) -> None:
        self.minimum = minimum

    def __call__(self, w: tf.Tensor) -> tf.Tensor:
        return tf.maximum(w, tf.cast(self.minimum, w.dtype))

    def get_config(self) -> dict[str, float]:
        return {"minimum": self.minimum}
