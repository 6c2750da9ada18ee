"""The surrogate gradients by name, Larq's among them."""

from collections.abc import Callable
from typing import Any

import larq as lq
import tensorflow as tf

from kbnn.compiled import widen
from kbnn.errors import UsageError, unknown
from kbnn.quantizers.base import Estimator, clipped, times
from kbnn.quantizers.ede import EDESign
from kbnn.quantizers.leaky_ste import LeakySteSign
from kbnn.quantizers.sign_swish import SignSwish
from kbnn.quantizers.tanh import TanhSign

# (x, dL/dsign(x), parameters) -> dL/dx.
Gradient = Callable[..., tf.Tensor]

ESTIMATORS: dict[str, type[lq.quantizers.Quantizer]] = {
    "approx_sign": lq.quantizers.ApproxSign,
    "ede": EDESign,
    "leaky_ste": LeakySteSign,
    "sign_swish": SignSwish,
    "ste": lq.quantizers.SteSign,
    "tanh": TanhSign,
}


def ste_gradient(x: tf.Tensor, dy: tf.Tensor, clip_value: float | None = 1.0) -> tf.Tensor:
    """dy on abs(x) <= clip_value, else 0; dy everywhere when there is none."""
    return dy if clip_value is None else clipped(x, dy, clip_value)


def approx_sign_gradient(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    """dy·(2 - 2·abs(x)) on abs(x) <= 1, else 0 (Bi-Real Net, equation 3)."""
    return times(dy, tf.maximum(2 - 2 * tf.abs(widen(x)), 0.0))


def estimator(identifier: Any) -> lq.quantizers.Quantizer:
    """The quantizer of a surrogate gradient's name, of a Keras configuration, or the quantizer itself.

    Raises:
        UsageError: an unknown name (near names are offered), or a quantizer without a surrogate gradient.
    """
    if isinstance(identifier, str):
        if identifier not in ESTIMATORS:
            raise unknown("gradient", identifier, ESTIMATORS)
        return ESTIMATORS[identifier]()
    quantizer = tf.keras.utils.deserialize_keras_object(identifier) if isinstance(identifier, dict) else identifier
    input_gradient(quantizer)
    return quantizer


def serialize(quantizer: lq.quantizers.Quantizer) -> dict[str, Any]:
    """The Keras configuration of an estimator, which `estimator` takes."""
    return tf.keras.utils.serialize_keras_object(quantizer)


def input_gradient(quantizer: Any) -> Gradient:
    """The surrogate gradient of a quantizer as a function (x, dy) -> dL/dx, Larq's own included.

    Raises:
        UsageError: what was received has none.
    """
    gradient, parameters = surrogate(quantizer)
    return lambda x, dy: gradient(x, dy, *parameters)


def surrogate(quantizer: Any) -> tuple[Gradient, tuple[Any, ...]]:
    """The surrogate gradient as a function (x, dy, *parameters) -> dL/dx that is the same for all of its kind.

    Raises:
        UsageError: what was received has none.
    """
    if isinstance(quantizer, Estimator):
        return type(quantizer).surrogate, quantizer.parameters()
    if isinstance(quantizer, lq.quantizers.SteSign):
        return ste_gradient, (quantizer.clip_value,)
    if isinstance(quantizer, lq.quantizers.ApproxSign):
        return approx_sign_gradient, ()
    raise UsageError(
        f"no surrogate gradient: received {quantizer!r}; pass one of {', '.join(sorted(ESTIMATORS))} or its quantizer"
    )
