"""IR-Net's schedule: the formula, on every estimator of a network, and within a recipe."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn import models, quantizers, training
from kbnn.errors import UsageError


def estimators(model: tf.keras.Model) -> list[quantizers.EDESign]:
    return [module for module in model.submodules if isinstance(module, quantizers.EDESign)]


def schedule(epochs: int, first: int = 0) -> tuple[training.EDESchedule, tf.keras.Model]:
    model = models.build("tiny", method="irnet")
    callback = training.EDESchedule(epochs, first)
    callback.set_model(model)
    return callback, model


@pytest.mark.parametrize(
    ("epoch", "t", "k"), [(0, 1e-3, 1e3), (30, 1e-3 * 1e4**0.3, 1 / (1e-3 * 1e4**0.3)), (99, 10 * 1e4**-0.01, 1.0)]
)
def test_the_formula_on_activations_and_kernels(epoch: int, t: float, k: float):
    callback, model = schedule(100)
    callback.on_epoch_begin(epoch)
    assert len(estimators(model)) == 2 * 4
    for estimator in estimators(model):
        np.testing.assert_allclose([estimator.t.numpy(), estimator.k.numpy()], [t, k], rtol=1e-6)


def test_a_later_stage_starts_anew():
    callback, model = schedule(10, first=400)
    callback.on_epoch_begin(400)
    assert estimators(model)[0].t.numpy() == pytest.approx(1e-3)


def test_a_recipe_of_irnet_sharpens_by_itself(tmp_path: object):
    run = training.train(training.Recipe.of("tiny", "irnet", "digits", epochs=2), f"{tmp_path}/run")
    assert estimators(run.model())[0].t.numpy() == pytest.approx(1e-3 * 1e4**0.5, rel=1e-5)


def test_no_epochs_are_refused():
    with pytest.raises(UsageError, match="received epochs=0"):
        training.EDESchedule(0)
