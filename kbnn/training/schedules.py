"""Numbers of the papers' techniques that follow the epoch, as Keras callbacks.

Each finds what it sets in the model and sets it when an epoch begins, from nothing but the epoch's number, so that a
resumed training goes on as an uninterrupted one.
"""

import weakref
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from kbnn.errors import UsageError
from kbnn.quantizers import EDESign, HalfHalf, SignSwish
from kbnn.regularizers import AdjustablePenalty
from kbnn.training.built import require_built


class Schedule(tf.keras.callbacks.Callback):
    """Sets something at the beginning of each epoch.

    Args:
        epochs: E, length of the schedule; Keras's number of epochs when not given.
        first: Keras's number of the first epoch, counted from 0.

    Raises:
        UsageError: an E under 1; when training starts, a model that is not built.
    """

    def __init__(self, epochs: int | None = None, first: int = 0) -> None:
        super().__init__()
        if epochs is not None and epochs < 1:
            raise UsageError(f"{type(self).__name__}: epochs must be at least 1, received {epochs}")
        self.epochs = epochs
        self.first = first

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        require_built(self)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        length = self.epochs or self.params["epochs"] - self.first
        self.set((epoch - self.first) / length)

    def set(self, progress: float) -> None:
        """Sets the values of progress e/E."""
        raise NotImplementedError


class EDESchedule(Schedule):
    """IR-Net's error decay estimator: `t` and `k` of every `EDESign` in the model.

    t = Tmin·(Tmax/Tmin)^(e/E), k = max(1/t, 1) in epoch e of E.

    Args:
        epochs: E; Keras's number of epochs when not given.
        first: Keras's number of the first epoch, counted from 0.
        lowest: Tmin.
        highest: Tmax.

    Raises:
        UsageError: an E under 1, or a T that is not positive.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.EDESchedule()])

    Source: Qin et al., IR-Net, 2020, equation 14; the values are the authors' code.
    """

    def __init__(self, epochs: int | None = None, first: int = 0, lowest: float = 1e-3, highest: float = 10.0) -> None:
        super().__init__(epochs, first)
        if not (lowest > 0 and highest > 0):
            raise UsageError(f"EDESchedule: Tmin and Tmax must be positive, received {lowest} and {highest}")
        self.lowest = lowest
        self.highest = highest

    def set(self, progress: float) -> None:
        t = self.lowest * (self.highest / self.lowest) ** progress
        for quantizer in found(self.model, EDESign):
            quantizer.t.assign(t)
            quantizer.k.assign(max(1 / t, 1.0))


class BetaSchedule(Schedule):
    """BNN+'s SignSwish: β of every `SignSwish` in the model that does not train it, sharpening as EDE does.

    β = β₀·(β₁/β₀)^(e/(E - 1)) in epoch e of E, so that the last epoch has β₁.

    Args:
        begin: β₀.
        end: β₁.
        epochs: E; Keras's number of epochs when not given.
        first: Keras's number of the first epoch, counted from 0.

    Raises:
        UsageError: an E under 1, or a β that is not positive.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.BetaSchedule(5.0, 10.0)])
    """

    def __init__(self, begin: float, end: float, epochs: int | None = None, first: int = 0) -> None:
        super().__init__(epochs, first)
        if not (begin > 0 and end > 0):
            raise UsageError(f"BetaSchedule: β must be positive, received {begin} and {end}")
        self.begin = begin
        self.end = end

    def set(self, progress: float) -> None:
        length = self.epochs or self.params["epochs"] - self.first
        share = min(progress * length / max(length - 1, 1), 1.0)
        for quantizer in found(self.model, SignSwish):
            if not quantizer.trainable_beta:
                quantizer.beta.assign(self.begin * (self.end / self.begin) ** share)


class PercentileSchedule(Schedule):
    """SiMaN's clamp of magnitudes: `percentile` of every `HalfHalf` in the model that has one.

    p = p₀·(1 - e/E) in epoch e of E.

    Args:
        begin: p₀.
        epochs: E; Keras's number of epochs when not given.
        first: Keras's number of the first epoch, counted from 0.

    Raises:
        UsageError: an E under 1.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.PercentileSchedule()])

    Source: the code of SiMaN's authors.
    """

    def __init__(self, begin: float = 15.0, epochs: int | None = None, first: int = 0) -> None:
        super().__init__(epochs, first)
        self.begin = begin

    def set(self, progress: float) -> None:
        for quantizer in found(self.model, HalfHalf):
            if isinstance(quantizer.percentile, tf.Variable):
                quantizer.percentile.assign(self.begin * (1 - progress))


class RegularizationWarmup(Schedule):
    """A penalty that rises: λ of every kbnn regularizer in the model.

    λ·min((e + 1)/E, 1) in epoch e.

    Args:
        epochs: E; Keras's number of epochs when not given.
        first: Keras's number of the first epoch, counted from 0.
        strength: λ; what each regularizer has when training begins, if not given.

    Raises:
        UsageError: an E under 1.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.RegularizationWarmup(10)])

    Source: BNN+, section 5, advises to raise the penalty gradually.
    """

    def __init__(self, epochs: int | None = None, first: int = 0, strength: float | None = None) -> None:
        super().__init__(epochs, first)
        self.strength = strength
        # By penalty: what each is to reach. A second `fit` finds them risen in part, and goes by the first one's.
        self._targets: weakref.WeakKeyDictionary[AdjustablePenalty, float] = weakref.WeakKeyDictionary()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Penalties have their strength before the model has variables.
        for penalty in penalties(self.model):
            self._targets.setdefault(
                penalty, float(penalty.strength.numpy()) if self.strength is None else self.strength
            )

    def set(self, progress: float) -> None:
        length = self.epochs or self.params["epochs"] - self.first
        for penalty, strength in self._targets.items():
            penalty.strength.assign(strength * min(progress + 1 / length, 1.0))


def found(model: tf.keras.Model, kind: type) -> Iterator[Any]:
    """All layers and quantizers of a kind in a model, however deep."""
    return (module for module in model.submodules if isinstance(module, kind))


def penalties(model: tf.keras.Model) -> list[AdjustablePenalty]:
    """The penalties of a model's layers whose strength can be set, each once."""
    holders = [
        getattr(module, name, None)
        for module in model.submodules
        for name in ("kernel_regularizer", "scale_regularizer")
    ]
    return list({id(penalty): penalty for penalty in holders if isinstance(penalty, AdjustablePenalty)}.values())
