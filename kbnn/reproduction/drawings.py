"""Draws the papers' figures that follow from quantizers and regularizers alone."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kbnn import quantizers
from kbnn import regularizers as penalties
from kbnn.analysis import figures
from kbnn.analysis.pictures import Picture


def estimators() -> Picture:
    """Surrogate gradients. Leaves out those that look alike: `leaky_ste` is `ste` + 0.01, `ede` at t = 1 is `tanh`."""
    chosen = {
        "ste": quantizers.SteSign(),
        "approx_sign": quantizers.ApproxSign(),
        "tanh": quantizers.TanhSign(),
        "sign_swish, β = 1": quantizers.SignSwish(1.0),
        "sign_swish, β = 5": quantizers.SignSwish(5.0),
        "sign_swish, β = 10": quantizers.SignSwish(10.0),
        "ede, t = 10 (last epoch)": quantizers.EDESign(t=10.0, k=1.0),
    }
    return figures.estimators({name: figures.derivative_of(quantizer) for name, quantizer in chosen.items()})


def large_gap() -> Picture:
    """PresB-Net's groups with a large gap between them."""
    return figures.group_balance({"large gap": 6.0})


def small_gap() -> Picture:
    """PresB-Net's groups with a small gap between them."""
    return figures.group_balance({"small gap": 0.2})


def regularizers() -> Picture:
    """The Manhattan and the Euclidean penalty of one weight."""
    return figures.regularizers(
        {
            "Manhattan: |α - |w||": _of_one_weight(penalties.manhattan),
            "Euclidean: (α - |w|)²": _of_one_weight(penalties.euclidean),
        }
    )


def _of_one_weight(
    penalty: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> Callable[[np.ndarray, float], np.ndarray]:
    """Applies a penalty, which is a sum over weights, to each weight separately."""

    def each(weights: np.ndarray, alpha: float) -> np.ndarray:
        return np.array([float(penalty(tf.constant([[w]]), tf.constant([alpha]))) for w in weights])

    return each
