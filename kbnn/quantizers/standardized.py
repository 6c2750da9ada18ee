"""The standardized kernel binarizer of ML+BMA's training algorithm."""

from typing import Any

import tensorflow as tf

from kbnn.errors import unknown
from kbnn.quantizers import xnor
from kbnn.quantizers.base import KernelQuantizer, clipped, sign, standardize, surrogate_sign


def ste_gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """dy on abs(x) <= 1, else 0."""
    return clipped(x, dy)


def through_standardization(w: tf.Tensor) -> tf.Tensor:
    """sign(Ŵ), Ŵ = (W - mean)/std per filter; the gradient passes abs(Ŵ) <= 1 and then mean and deviation."""
    return tf.cast(surrogate_sign(standardize(w), ste_gradient), w.dtype)


@tf.custom_gradient
def by_xnor_rule(w: tf.Tensor) -> tf.Tensor:
    """sign(Ŵ); its gradient is XNOR-Net's, dy·(1/n + α·1[abs(W) <= 1])."""
    return tf.cast(sign(standardize(w)), w.dtype), lambda dy: xnor.gradient(w, dy)


GRADIENTS = {"ste": through_standardization, "xnor": by_xnor_rule}


@tf.keras.utils.register_keras_serializable(package="kbnn")
class StandardizedSign(KernelQuantizer):
    """The signs of a kernel that is standardized per filter: as many +1 as -1 where its weights are symmetric.

    Forward: q(W) = sign(Ŵ), Ŵ = (W - mean(W))/std(W).
    Gradient: "ste": dL/dŴ = dL/dq·1[abs(Ŵ) <= 1], and on through mean and deviation.
    "xnor": dL/dW = dL/dq·(1/n + α·1[abs(W) <= 1]), α = mean(abs(W)) per filter.

    Args:
        gradient: "ste" or "xnor".

    Raises:
        UsageError: an unknown gradient, or it is given activations.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, kernel_quantizer=kbnn.quantizers.StandardizedSign(), scale="mean_abs")

    Source: ML+BMA, algorithm 1, steps 1 and 4.
    Deviates from the paper: its gradient is XNOR-Net's, which ignores the standardization; "ste" is the default.
    """

    def __init__(self, gradient: str = "ste", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if gradient not in GRADIENTS:
            raise unknown("gradient of StandardizedSign", gradient, GRADIENTS)
        self.gradient = gradient

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return GRADIENTS[self.gradient](inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gradient": self.gradient}
