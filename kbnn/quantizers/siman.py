"""The base of SiMaN's two kernel binarizers, which encode the magnitude of a weight instead of its sign."""

from collections.abc import Callable

import tensorflow as tf

from kbnn._keras import Config
from kbnn.errors import unknown
from kbnn.quantizers.base import KernelQuantizer, sign, standardize

# Added to the variance in the authors' code.
EPSILON = 1e-5


def encode(magnitude: tf.Tensor, encoding: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """2b - 1, with b = 1 where `encoding` marks a magnitude."""
    columns = tf.reshape(magnitude, [-1, magnitude.shape[-1]])
    return tf.reshape(tf.where(encoding(columns), 1.0, -1.0), magnitude.shape)


def by_identity(w: tf.Tensor, code: "MagnitudeCode") -> tf.Tensor:
    """2b - 1 of abs(W); its gradient is dy (SiMaN, equation 6)."""

    @tf.custom_gradient
    def binarize(w: tf.Tensor) -> tf.Tensor:
        return tf.cast(encode(tf.abs(tf.cast(w, tf.float32)), code.encoding), w.dtype), lambda dy: dy

    return binarize(w)


def by_magnitude(w: tf.Tensor, code: "MagnitudeCode") -> tf.Tensor:
    """2b - 1 of abs(w₂), w₂ = (W - mean)/√(var + 1e-5); dL/dw₂ = dy·sign(w₂), then through the standardization."""

    @tf.custom_gradient
    def binarize(w2: tf.Tensor) -> tf.Tensor:
        return encode(tf.abs(w2), code.encoding), lambda dy: dy * sign(w2)

    return tf.cast(binarize(standardize(w, lost_degrees=int(code.unbiased), epsilon=EPSILON)), w.dtype)


GRADIENTS = {"identity": by_identity, "magnitude": by_magnitude}


class MagnitudeCode(KernelQuantizer):
    """+1 for the large magnitudes of a filter, -1 for the small ones."""

    def __init__(self, gradient: str, unbiased: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if gradient not in GRADIENTS:
            raise unknown(f"gradient of {type(self).__name__}", gradient, GRADIENTS)
        self.gradient = gradient
        self.unbiased = unbiased

    def encoding(self, magnitude: tf.Tensor) -> tf.Tensor:
        """A mask of the weights that become +1, from magnitudes `(n, Cout)` with one filter per column."""
        raise NotImplementedError

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return GRADIENTS[self.gradient](inputs, self)

    def get_config(self) -> Config:
        return {**super().get_config(), "gradient": self.gradient, "unbiased": self.unbiased}
