"""Schedules as callbacks of `model.fit`."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, quantizers, regularizers
from kbnn.errors import UsageError
from kbnn.training import (
    BatchNormRetraining,
    BetaSchedule,
    EDESchedule,
    FlipRatio,
    PercentileSchedule,
    QuantizerSchedule,
    RegularizationWarmup,
    TerminateOnDivergence,
)
from kbnn.training.schedules import Schedule


class Watch(tf.keras.callbacks.Callback):
    """Records a value of the model in every epoch."""

    def __init__(self, look: Callable[[tf.keras.Model], object]) -> None:
        super().__init__()
        self.look = look
        self.seen: list[object] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.seen.append(self.look())


def model(**arguments: object) -> tf.keras.Model:
    inputs = tf.keras.Input((4, 4, 2))
    x = layers.BinaryConv2D(4, 3, name="conv", **arguments)(inputs)
    built = tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(x))
    built.compile("sgd", "mse")
    return built


def watched(
    network: tf.keras.Model, schedule: Schedule, look: Callable[[tf.keras.Model], object], epochs: int, initial: int = 0
) -> list[object]:
    watch = Watch(look)
    x, y = np.ones((2, 4, 4, 2), np.float32), np.ones((2, 4), np.float32)
    network.fit(x, y, epochs=epochs, initial_epoch=initial, callbacks=[schedule, watch], verbose=0)
    return watch.seen


@pytest.mark.slow
def test_ede_sharpens_on_both_sides():
    network = model(
        input_quantizer=quantizers.EDESign(), kernel_quantizer=quantizers.LibraSign(gradient=quantizers.EDESign())
    )
    conv = network.get_layer("conv")
    found = [conv.input_quantizer, conv.kernel_quantizer.estimator]

    seen = watched(network, EDESchedule(), lambda: [(float(q.t), float(q.k)) for q in found], epochs=4)

    t = [1e-3 * 1e4 ** (e / 4) for e in range(4)]
    expected = [[(value, max(1 / value, 1))] * 2 for value in t]
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_schedule_that_starts_in_a_later_epoch_sets_its_values():
    network = model(input_quantizer=quantizers.EDESign())
    quantizer = network.get_layer("conv").input_quantizer
    schedule = EDESchedule(epochs=4, first=2, lowest=1.0, highest=16.0)
    seen = watched(network, schedule, lambda: float(quantizer.t), epochs=6, initial=3)
    np.testing.assert_allclose(seen, [2.0, 4.0, 8.0], rtol=1e-6)


@pytest.mark.slow
def test_beta_is_scheduled_unless_it_is_trained():
    network = model(
        input_quantizer=quantizers.SignSwish(5.0), kernel_quantizer=quantizers.SignSwish(5.0, trainable_beta=True)
    )
    conv = network.get_layer("conv")
    seen = watched(network, BetaSchedule(5.0, 20.0), lambda: float(conv.input_quantizer.beta), epochs=3)
    np.testing.assert_allclose(seen, [5.0, 10.0, 20.0], rtol=1e-6)
    assert float(conv.kernel_quantizer.beta) == pytest.approx(5.0, abs=1)


@pytest.mark.slow
def test_the_percentile_falls():
    network = model(input_quantizer="ste_sign", kernel_quantizer=quantizers.HalfHalf("magnitude", percentile=15.0))
    quantizer = network.get_layer("conv").kernel_quantizer
    seen = watched(network, PercentileSchedule(), lambda: float(quantizer.percentile), epochs=3)
    np.testing.assert_allclose(seen, [15.0, 10.0, 5.0], rtol=1e-6)


@pytest.mark.slow
def test_a_penalty_rises_to_its_strength():
    network = model(kernel_quantizer="ste_sign", kernel_regularizer=regularizers.MedianLoss(0.4))
    strength = network.get_layer("conv").kernel_regularizer.strength
    seen = watched(network, RegularizationWarmup(4), lambda: float(strength), epochs=6)
    np.testing.assert_allclose(seen, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-6)


def test_penalties_of_scales_rise_too():
    network = model(kernel_quantizer="ste_sign", scale="learned", scale_regularizer=regularizers.Euclidean(1.0))
    strength = network.get_layer("conv").scale_regularizer.strength
    seen = watched(network, RegularizationWarmup(2, strength=0.5), lambda: float(strength), epochs=2)
    np.testing.assert_allclose(seen, [0.25, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EDESchedule(0),
        lambda: QuantizerSchedule(-1),
        lambda: RegularizationWarmup(0),
        lambda: PercentileSchedule(epochs=0),
    ],
)
def test_invalid_arguments(make: Callable[[], object]):
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize("schedule", [EDESchedule(lowest=0.0), QuantizerSchedule(ede=(1.0, -1.0))])
def test_quantizers_check_their_schedules_settings(schedule: Schedule):
    network = model(input_quantizer=quantizers.EDESign())
    with pytest.raises(UsageError, match="Tmin and Tmax must be positive and finite"):
        watched(network, schedule, lambda: None, epochs=1)


ONES = np.ones((2, 4, 4, 2), np.float32), np.ones((2, 4), np.float32)
EDE = {"input_quantizer": "ede", "kernel_quantizer": "ste_sign"}


@pytest.mark.parametrize(
    ("callback", "arguments", "message"),
    [
        (EDESchedule(), {}, r"EDESchedule has no effect: received 'model.*' without an EDESign; remove the callback"),
        (BetaSchedule(5.0, 10.0), EDE, "BetaSchedule has no effect: .* without a SignSwish whose β is not trained"),
        (
            BetaSchedule(5.0, 10.0),
            {"input_quantizer": quantizers.SignSwish(trainable_beta=True)},
            "BetaSchedule has no effect: .* without a SignSwish whose β is not trained",
        ),
        (
            PercentileSchedule(),
            {"kernel_quantizer": "half_half"},
            "PercentileSchedule has no effect: .* without a HalfHalf with a percentile",
        ),
        (
            PercentileSchedule(begin=50.0),
            {"kernel_quantizer": quantizers.HalfHalf(percentile=5.0)},
            r"HalfHalf: percentile must be in 0\.\.50, received 50\.0",
        ),
        (QuantizerSchedule(beta=(5.0, 9.0)), EDE, "unknown setting of the quantizers of 'model.*': received 'beta'"),
        (QuantizerSchedule(ede=1.0), EDE, r"EDESign cannot be scheduled: received ede=1\.0 \("),
        (QuantizerSchedule(ede=(1.0, 2.0)), {}, "no quantizer of 'model.*' has a schedule: received 'ede', remove it"),
        (RegularizationWarmup(), EDE, "RegularizationWarmup has no effect: .* without a penalty of kbnn.regularizers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, tf.keras.callbacks.Callback) else "",
)
def test_a_schedule_without_an_effect_is_an_error(
    callback: tf.keras.callbacks.Callback, arguments: dict[str, object], message: str
):
    with pytest.raises(UsageError, match=message):
        model(**arguments).fit(*ONES, callbacks=[callback], verbose=0)


def test_without_any_schedule_there_is_a_warning(caplog: pytest.LogCaptureFixture):
    """Not an error, because a script for all methods may always have this callback."""
    model(kernel_quantizer="ste_sign").fit(*ONES, callbacks=[QuantizerSchedule()], verbose=0)
    (record,) = [record for record in caplog.records if record.name.startswith("kbnn")]
    assert re.fullmatch(r"QuantizerSchedule has no effect: no quantizer of 'model.*' has a schedule", record.message)


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_strength_that_is_not_one(strength: float):
    with pytest.raises(UsageError, match=f"strength must not be negative or infinite, received {strength}"):
        RegularizationWarmup(strength=strength)


class Slope(quantizers.LeakySteSign):
    """A user's quantizer with a schedule of its own."""

    seen: ClassVar[list[tuple[float, float]]] = []

    def schedule(self, progress: float, slope: float = 0.5) -> None:
        self.seen.append((progress, slope))


@pytest.mark.slow
def test_one_callback_runs_every_quantizers_schedule():
    network = model(input_quantizer=Slope(), kernel_quantizer=quantizers.SignSwish(5.0))
    conv = network.get_layer("conv")
    schedule = QuantizerSchedule(epochs=3, beta=(5.0, 20.0), slope=0.25)
    schedule.check(network)
    seen = watched(network, schedule, lambda: float(conv.kernel_quantizer.beta), epochs=3)
    np.testing.assert_allclose(seen, [5.0, 10.0, 20.0], rtol=1e-6)
    # Checking the settings runs the first epoch's schedule, too.
    assert list(dict.fromkeys(Slope.seen)) == [(0.0, 0.25), (1 / 3, 0.25), (2 / 3, 0.25)]


def test_unknown_schedule_settings():
    with pytest.raises(UsageError, match="received 'edd'; did you mean ede"):
        QuantizerSchedule(edd=(1.0, 2.0)).check(model(input_quantizer=quantizers.EDESign()))
    with pytest.raises(UsageError, match=r"no quantizer of 'model.*' has a schedule: received 'ede', remove it"):
        QuantizerSchedule(ede=(1.0, 2.0)).check(model(input_quantizer="ste_sign"))


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its schedules reach their end values, and its logs contain the documented figures."""
    blocks = re.findall(r"```python\n(.*?)```", Path("docs/training.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if ".fit(" in block]
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(code)
    found = runpy.run_path("own.py")
    model, learner = found["model"], found["learner"]
    layer = model.get_layer("binary")
    assert float(layer.input_quantizer.t) == pytest.approx(1e-3 * 1e4 ** (2 / 3), rel=1e-5)
    assert float(layer.kernel_regularizer.strength) == pytest.approx(1e-4)
    assert {"loss", "accuracy", "val_accuracy", "flip_ratio/binary", "weight_entropy/binary"} <= set(
        learner.history.history
    )
    assert list(tmp_path.rglob("events*"))


class Subclassed(tf.keras.Model):
    """Creates its variables with its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.BinaryConv2D(
            4,
            3,
            input_quantizer=quantizers.EDESign(),
            kernel_quantizer=quantizers.HalfHalf(percentile=15.0),
            kernel_regularizer=regularizers.MedianLoss(0.1),
            name="conv",
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(self.conv(x), (1, 2))


LOOKING = (EDESchedule, PercentileSchedule, FlipRatio, TerminateOnDivergence)


@pytest.mark.parametrize("kind", [*LOOKING, BatchNormRetraining])
def test_a_model_without_variables_is_one_clear_error(kind: type[tf.keras.callbacks.Callback]):
    network = Subclassed()
    network.compile("sgd", "mse")
    with pytest.raises(UsageError, match=f"{kind.__name__} needs a model that is built: received 'subclassed"):
        network.fit(np.ones((2, 4, 4, 2)), np.ones((2, 4)), callbacks=[kind()], verbose=0)


def test_a_subclassed_model_that_is_built():
    network = Subclassed()
    network(np.ones((2, 4, 4, 2)))
    network.compile("sgd", "mse")
    callbacks = [RegularizationWarmup(), *(kind() for kind in LOOKING)]
    network.fit(np.ones((2, 4, 4, 2)), np.ones((2, 4)), epochs=2, callbacks=callbacks, verbose=0)
    assert float(network.conv.input_quantizer.t) == pytest.approx(1e-3 * 1e4**0.5, rel=1e-5)
    assert "flip_ratio/conv" in network.history.history
