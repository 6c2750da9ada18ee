"""Schedules other than the learning rate's, as Keras callbacks.

Each sets its values at the beginning of an epoch, from the epoch's number alone, so that a resumed training continues
exactly like an uninterrupted one.
"""

import inspect
import logging
import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Protocol

import tensorflow as tf

from kbnn import quantizers, structure
from kbnn.errors import UsageError, unknown
from kbnn.printable import printable
from kbnn.regularizers import AdjustablePenalty
from kbnn.training.learner import require_built

logger = logging.getLogger(__name__)


class Schedule(tf.keras.callbacks.Callback):
    """Sets values at the beginning of each epoch.

    Args:
        epochs: E, length of the schedule; by default Keras's number of epochs.
        first: Keras's number of the schedule's first epoch, counted from 0.

    Raises:
        UsageError: E is less than 1, or the model is not built when training starts.
    """

    def __init__(self, epochs: int | None = None, first: int = 0) -> None:
        super().__init__()
        if epochs is not None and epochs < 1:
            raise UsageError(f"{type(self).__name__}: epochs must be at least 1, received {epochs}")
        self.epochs = epochs
        self.first = first

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        require_built(self)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        epochs = self.epochs or self.params["epochs"] - self.first
        self.set((epoch - self.first) / epochs, epochs)

    def set(self, progress: float, epochs: int) -> None:
        """Sets the values for progress e/E."""
        raise NotImplementedError


class QuantizerSchedule(Schedule):
    """Runs the schedules of all quantizers in a model.

    A quantizer that changes during training has a method `schedule(progress, ...)`, which sets its variables
    for progress e/E. It may take `epochs`, E, and settings of its own, such as `ede` of `EDESign`. A quantizer whose
    attribute `is_scheduled` is False has none. If no quantizer has a schedule, a warning is logged.

    Args:
        epochs: E; by default Keras's number of epochs.
        first: Keras's number of the schedule's first epoch, counted from 0.
        **settings: passed to the schedules that take them: `ede`, `beta`, `percentile`.

    Raises:
        UsageError: E is less than 1, or when training starts, no quantizer takes a setting, or one rejects it.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.QuantizerSchedule(beta=(5.0, 10.0))])
    """

    # The quantizers whose schedules are run, and what the model must have; by default, all of them.
    kind: ClassVar[type] = tf.Module
    needs: ClassVar[str] = ""

    def __init__(self, epochs: int | None = None, first: int = 0, **settings: object) -> None:
        super().__init__(epochs, first)
        self.settings = settings

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        super().on_train_begin(logs)
        self.check(self.model)

    def set(self, progress: float, epochs: int) -> None:
        for quantizer in scheduled(self.model, self.kind):
            quantizer.schedule(progress, **self._taken(quantizer, epochs))

    def _taken(self, quantizer: "Scheduled", epochs: int) -> dict[str, object]:
        """The arguments that the schedule of a quantizer takes, besides the progress."""
        taken = inspect.signature(quantizer.schedule).parameters
        return {key: value for key, value in {**self.settings, "epochs": epochs}.items() if key in taken}

    def check(self, model: tf.keras.Model) -> None:
        """Checks that the schedules change a quantizer of the model, and that the quantizers take all settings.

        The quantizers get the values of the first epoch.

        Raises:
            UsageError: a setting is not taken (close names are suggested) or rejected, or a callback for one kind of
                quantizers finds none.
        """
        found = list(scheduled(model, self.kind))
        if not found and self.needs:
            raise UsageError(
                f"{type(self).__name__} has no effect: received '{model.name}' without {self.needs}; remove the "
                f"callback, or change the quantizers"
            )
        parameters = (inspect.signature(quantizer.schedule).parameters for quantizer in found)
        known = {name for taken in parameters for name in taken} - {"progress", "epochs"}
        for name in self.settings:
            if not known:
                raise UsageError(f"no quantizer of '{model.name}' has a schedule: received '{name}', remove it")
            if name not in known:
                raise unknown(f"setting of the quantizers of '{model.name}'", name, known)
        if not found:
            logger.warning("%s has no effect: no quantizer of '%s' has a schedule", type(self).__name__, model.name)
        for quantizer in found:
            self._try(quantizer)

    def _try(self, quantizer: "Scheduled") -> None:
        """Raises UsageError if the schedule of a quantizer rejects its settings."""
        given = self._taken(quantizer, self.epochs or 1)
        try:
            quantizer.schedule(0.0, **given)
        except UsageError:
            raise
        except (TypeError, ValueError) as error:
            settings = ", ".join(f"{name}={value!r}" for name, value in given.items() if name in self.settings)
            raise UsageError(
                f"{type(quantizer).__name__} cannot be scheduled: received {settings or 'no settings'} "
                f"({printable(str(error))}); see its method schedule"
            ) from error


class EDESchedule(QuantizerSchedule):
    """IR-Net's error decay estimator: sets t and k of every `EDESign` in the model.

    t = Tmin·(Tmax/Tmin)^(e/E), k = max(1/t, 1) in epoch e of E.

    Args:
        epochs: E; by default Keras's number of epochs.
        first: Keras's number of the schedule's first epoch, counted from 0.
        lowest: Tmin.
        highest: Tmax.

    Raises:
        UsageError: E is less than 1, or when training starts, there is no `EDESign`, or Tmin or Tmax is not positive.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.EDESchedule()])

    Source: Qin et al., IR-Net, 2020, equation 14; the default values are from the authors' code.
    """

    kind = quantizers.EDESign
    needs = "an EDESign"

    def __init__(self, epochs: int | None = None, first: int = 0, lowest: float = 1e-3, highest: float = 10.0) -> None:
        super().__init__(epochs, first, ede=(lowest, highest))


class BetaSchedule(QuantizerSchedule):
    """BNN+'s SignSwish: sets β of every `SignSwish` in the model whose β is not trained.

    β = β₀·(β₁/β₀)^(e/(E - 1)) in epoch e of E, so that the last epoch has β₁.

    Args:
        begin: β₀.
        end: β₁.
        epochs: E; by default Keras's number of epochs.
        first: Keras's number of the schedule's first epoch, counted from 0.

    Raises:
        UsageError: E is less than 1, or when training starts, there is no `SignSwish` whose β is not trained, or β₀ or
            β₁ is not positive.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.BetaSchedule(5.0, 10.0)])
    """

    kind = quantizers.SignSwish
    needs = "a SignSwish whose β is not trained"

    def __init__(self, begin: float, end: float, epochs: int | None = None, first: int = 0) -> None:
        super().__init__(epochs, first, beta=(begin, end))


class PercentileSchedule(QuantizerSchedule):
    """SiMaN's clamping of weights: sets the percentile of every `HalfHalf` in the model that has one.

    p = p₀·(1 - e/E) in epoch e of E.

    Args:
        begin: p₀.
        epochs: E; by default Keras's number of epochs.
        first: Keras's number of the schedule's first epoch, counted from 0.

    Raises:
        UsageError: E is less than 1, or when training starts, there is no `HalfHalf` with a percentile, or p₀ is
            outside 0..50.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.PercentileSchedule()])

    Source: the code of SiMaN's authors.
    """

    kind = quantizers.HalfHalf
    needs = "a HalfHalf with a percentile"

    def __init__(self, begin: float = 15.0, epochs: int | None = None, first: int = 0) -> None:
        super().__init__(epochs, first, percentile=begin)


class RegularizationWarmup(Schedule):
    """A penalty that rises: λ of every kbnn regularizer in the model is λ·min((e + 1)/E, 1) in epoch e.

    Args:
        epochs: E; by default Keras's number of epochs.
        first: Keras's number of the schedule's first epoch, counted from 0.
        strength: λ, not negative; by default each regularizer's own strength when training begins.

    Raises:
        UsageError: E is less than 1, λ is negative or infinite, or when training starts, the model has no penalty.

    Example:
        >>> model.fit(x, y, epochs=60, callbacks=[kbnn.training.RegularizationWarmup(10)])

    Source: BNN+, section 4.3, advises to increase the penalty gradually.
    """

    def __init__(self, epochs: int | None = None, first: int = 0, strength: float | None = None) -> None:
        super().__init__(epochs, first)
        if strength is not None and not 0 <= strength < math.inf:
            raise UsageError(f"RegularizationWarmup: strength must not be negative or infinite, received {strength}")
        self.strength = strength
        # The λ that each penalty shall reach. A second `fit`, which may find a partly risen λ, keeps the first one's.
        self._targets: weakref.WeakKeyDictionary[AdjustablePenalty, float] = weakref.WeakKeyDictionary()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        # A model that is not built yet has penalties, too, unless a layer creates the layers that have them.
        if not penalties(self.model):
            require_built(self)
        self.check(self.model)
        for penalty in penalties(self.model):
            self._targets.setdefault(
                penalty, float(penalty.strength.numpy()) if self.strength is None else self.strength
            )

    def check(self, model: tf.keras.Model) -> None:
        """Raises UsageError if the model has no penalty whose strength can change."""
        if not penalties(model):
            raise UsageError(
                f"{type(self).__name__} has no effect: received '{model.name}' without a penalty of kbnn.regularizers; "
                f"remove the callback, or add a penalty"
            )

    def set(self, progress: float, epochs: int) -> None:
        for penalty, strength in self._targets.items():
            penalty.strength.assign(strength * min(progress + 1 / epochs, 1.0))


class Scheduled(Protocol):
    """A quantizer with a schedule."""

    schedule: Callable[..., None]


def scheduled(model: tf.keras.Model, kind: type = object) -> Iterator[Scheduled]:
    """The quantizers of a kind that have a schedule, at any depth of the model."""
    found: Iterable[Scheduled] = structure.layers(model)
    return (
        part
        for part in found
        if callable(getattr(part, "schedule", None)) and isinstance(part, kind) and getattr(part, "is_scheduled", True)
    )


def penalties(model: tf.keras.Model) -> list[AdjustablePenalty]:
    """The distinct penalties of a model's layers whose strength can be changed."""
    holders = [
        getattr(layer, name, None)
        for layer in structure.layers(model)
        for name in ("kernel_regularizer", "scale_regularizer")
    ]
    return list({id(penalty): penalty for penalty in holders if isinstance(penalty, AdjustablePenalty)}.values())
