"""BNN+'s SignSwish."""

import math

import tensorflow as tf

from kbnn._keras import Config
from kbnn.compiled import compiled, partial_sums, widen
from kbnn.errors import UsageError
from kbnn.quantizers.base import LARGEST_EXPONENT, Estimator, times
from kbnn.quantizers.registry import register


def gradient(x: tf.Tensor, dy: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """dy·SS'_β(x), SS'_β(x) = β(2 - z·tanh(z/2))/(1 + cosh(z)), z = βx.

    tanh(abs(z)/2) = (1 - e)/(1 + e) and 1/(1 + cosh(z)) = 2e/(1 + e)², e = exp(-abs(z)): exact and finite.
    """
    z = tf.minimum(tf.abs(beta * widen(x)), LARGEST_EXPONENT)
    e = tf.exp(-z)
    inverse = 1 / (1 + e)
    return times(dy, 2 * beta * e * inverse * inverse * (2 - z * (1 - e) * inverse))


def beta_gradient(x: tf.Tensor, dx: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """Σ x·dx/β with dx = dy·SS'_β(x), which is Σ dy·dSS_β(x)/dβ of SS_β(x) = 2σ(βx)·(1 + βx·(1 - σ(βx))) - 1."""
    return tf.reduce_sum(_partial_beta_gradient(x, dx, beta))


@compiled
def _partial_beta_gradient(x: tf.Tensor, dx: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    furthest = LARGEST_EXPONENT / beta

    def term(x: tf.Tensor, dx: tf.Tensor) -> tf.Tensor:
        # Beyond this, dx is negligible, but a huge x could make the product large.
        return widen(dx) * tf.clip_by_value(widen(x), -furthest, furthest) / beta

    return partial_sums(term, x, dx)


@register(
    "sign_swish",
    aliases=("swish_sign",),
    presets={
        "sign_swish_5": {"beta": 5.0},
        "sign_swish_10": {"beta": 10.0},
        "sign_swish_trainable": {"beta": 5.0, "trainable_beta": True},
    },
)
class SignSwish(Estimator):
    """The sign with the derivative of SignSwish, a symmetric swish that overshoots ±1.

    Forward: q(x) = +1 where x >= 0, else -1.
    Gradient: dq/dx = β(2 - βx·tanh(βx/2))/(1 + cosh(βx)), which is β at 0, 0 at βx = ±2.3994 and negative beyond;
    dL/dβ = Σ dL/dq·x·(dq/dx)/β.

    `beta` is a variable once the layer is built: one positive scalar per quantizer.

    Args:
        beta: initial β, positive: 5 or 10 in the paper.
        trainable_beta: whether β is learned.

    Raises:
        UsageError: β is not positive.

    Example:
        >>> kbnn.layers.BinaryConv2D(64, 3, input_quantizer=kbnn.quantizers.SignSwish(5.0, trainable_beta=True))

    Source: Darabi et al., BNN+, 2018, equations 2 and 3.
    Deviates from the paper: the forward pass is the sign even if β is trained, as on the device.
    Larq's SwishSign is the same function with a fixed β, but its formula overflows for large inputs.
    """

    def __init__(self, beta: float = 5.0, trainable_beta: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        if not beta > 0:
            raise UsageError(f"SignSwish: beta must be positive, received {beta}")
        # A number until the layer is built.
        self.beta: tf.Variable = beta
        self._initial_beta = beta
        self.trainable_beta = trainable_beta

    def build(self, input_shape: tf.TensorShape) -> None:
        self.beta = self._add_parameter("beta", self._initial_beta, trainable=self.trainable_beta)
        super().build(input_shape)

    surrogate = staticmethod(gradient)

    def parameters(self) -> tuple[tf.Tensor]:
        return (tf.convert_to_tensor(self.beta),)

    def parameter_gradients(self, x: tf.Tensor, dx: tf.Tensor) -> list[tf.Tensor]:
        return [beta_gradient(x, dx, *self.parameters())] if self.trainable_beta else []

    @property
    def is_scheduled(self) -> bool:
        """Whether `schedule` has an effect: not on a β that is trained."""
        return not self.trainable_beta

    def schedule(self, progress: float, epochs: int, beta: tuple[float, float] | None = None) -> None:
        """Sets β = β₀·(β₁/β₀)^(e/(E - 1)) in epoch e = progress·E, unless β is trained.

        Args:
            progress: e/E, the completed share of the training.
            epochs: E.
            beta: β₀ and β₁, positive; if not given, β does not change.

        Raises:
            UsageError: a β is not positive.
        """
        if beta is None or not self.is_scheduled:
            return
        begin, end = beta
        if not (0 < begin < math.inf and 0 < end < math.inf):
            raise UsageError(f"SignSwish: beta must be positive and finite, received {begin} and {end}")
        share = min(progress * epochs / max(epochs - 1, 1), 1.0)
        self.beta.assign(begin * (end / begin) ** share)

    def get_config(self) -> Config:
        return {**super().get_config(), "beta": self._initial_beta, "trainable_beta": self.trainable_beta}
