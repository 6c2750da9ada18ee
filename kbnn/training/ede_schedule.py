"""IR-Net's schedule of the error decay estimator."""

from typing import Any

import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.quantizers import EDESign

T_MIN, T_MAX = 1e-3, 10.0


class EDESchedule(tf.keras.callbacks.Callback):
    """Sharpens every `EDESign` of a network before each epoch; other networks are left alone.

    t = Tmin·(Tmax/Tmin)^(e/E), k = max(1/t, 1), Tmin = 1e-3, Tmax = 10: epoch e counts from 0, so that gradients start
    as the identity's, 1 within |x| < 1/t, and end close to the sign's.

    Args:
        epochs: E.
        first: the epoch, as Keras counts, that is e = 0.

    Raises:
        UsageError: fewer than one epoch.

    Example:
        >>> model.fit(x, y, epochs=100, callbacks=[kbnn.training.EDESchedule(100)])

    Source: Qin et al., IR-Net, 2020, equations 15 and 16; Tmin and Tmax from the authors' code.
    """

    def __init__(self, epochs: int, first: int = 0) -> None:
        super().__init__()
        if epochs < 1:
            raise UsageError(f"EDESchedule needs at least one epoch: received epochs={epochs}")
        self.epochs = epochs
        self.first = first

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        t = T_MIN * (T_MAX / T_MIN) ** ((epoch - self.first) / self.epochs)
        # Once built, t and k are variables.
        estimators: list[Any] = [module for module in self.model.submodules if isinstance(module, EDESign)]
        for estimator in estimators:
            estimator.t.assign(t)
            estimator.k.assign(max(1 / t, 1.0))
