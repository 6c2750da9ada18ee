"""Recipes and stages replace parts of a method."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn import quantizers
from kbnn.datasets import Arrays, Dataset, Normalization
from kbnn.errors import UsageError
from kbnn.training import ModelSettings, Recipe, Stage
from kbnn.training.networks import check, method, network


def settings(name: str = "bnnplus_r2", **changes: object) -> ModelSettings:
    return ModelSettings(name="tiny", method=name, **changes)


STAGE = Stage(epochs=1)


def test_unchanged_settings_keep_the_method():
    found = method(settings("bireal"), STAGE)
    arguments = found.layer_arguments()
    assert isinstance(arguments["input_quantizer"], quantizers.ApproxSign)
    assert isinstance(arguments["kernel_quantizer"], quantizers.MagnitudeAwareSign)


def test_parts_are_replaced():
    found = method(settings(activations="tanh", kernels="sign_swish_10", scale="mean_abs"), STAGE)
    assert isinstance(found.input_quantizer(), quantizers.TanhSign)
    assert found.kernel_quantizer().beta == 10
    assert found.scale == "mean_abs"
    assert found.scale_regularizer is None


def test_the_strength_of_the_penalty():
    assert float(method(settings(penalty=1e-3), STAGE).scale_regularizer.strength) == pytest.approx(1e-3)
    assert float(method(settings("xnor+ml", penalty=1e-2), STAGE).kernel_regularizer.strength) == pytest.approx(1e-2)


def test_a_strength_without_a_penalty_is_refused():
    recipe = Recipe.of("tiny", "xnor", "digits").changed({"model.penalty": 1e-4})
    with pytest.raises(UsageError, match=r"method 'xnor' has no penalty: received model.penalty=0.0001, remove it or"):
        check(recipe)
    check(recipe.changed({"model.method": "xnor+ml"}))
    # A penalty in one of the stages is enough.
    stage = recipe.tables()["stage"][0]
    check(recipe.changed({"stage": [{**stage, "method": "float"}, {**stage, "method": "bnnplus_r1"}]}))


def test_a_scope_without_a_scale_is_refused():
    recipe = Recipe.of("tiny", "bireal", "digits").changed({"model.scale_scope": "layer"})
    with pytest.raises(UsageError, match=r"'bireal' has no scale of the output: received model.scale_scope='layer'"):
        check(recipe)
    check(recipe.changed({"model.scale": "learned"}))
    check(recipe.changed({"model.method": "bnnplus_r1"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stage.1.penalty_warmup": 2},
            "method 'bireal' has no penalty: received stage.1.penalty_warmup=2, remove it or add '+ml'",
        ),
        (
            {"model.method": "bnnplus_r2", "model.scale": "mean_abs", "stage.1.penalty_warmup": 2},
            "method 'bnnplus_r2' has no penalty: received stage.1.penalty_warmup=2",
        ),
        (
            {"model.method": "float", "model.kernels": "xnor"},
            "'float' has no binary kernels: received model.kernels='x",
        ),
        (
            {"model.method": "float", "stage.1.kernels": "real"},
            "method 'float' has no signs of activations: received stage.1.kernels='real', remove it or give a binary m",
        ),
        (
            {"stage.1.kernels": "real", "model.scale": "learned"},
            "has no binary kernels: received model.scale='learned'",
        ),
        (
            {"model.method": "float", "model.activations": "ede"},
            "'float' has no signs of activations: received model.a",
        ),
        (
            {"model.name": "presb10", "model.options": {"estimator": "ste"}, "model.activations": "ede"},
            "the option 'estimator' of the network replaces the sign: received model.activations='ede'",
        ),
    ],
)
def test_settings_without_an_effect_are_refused(changes: dict[str, object], message: str):
    recipe = Recipe.of("tiny", "bireal", "digits").changed(changes)
    with pytest.raises(UsageError) as caught:
        check(recipe)
    assert message in str(caught.value)
    check(recipe, is_new=False)


def test_a_warm_penalty_in_its_own_stage_only():
    stages = [{"epochs": 2, "penalty_warmup": 1}, {"epochs": 2, "method": "xnor"}]
    recipe = Recipe.of("tiny", "xnor+ml", "digits").changed({"stage": stages})
    check(recipe)
    with pytest.raises(UsageError, match=r"method 'xnor' has no penalty: received stage.2.penalty_warmup=1"):
        check(recipe.changed({"stage.2.penalty_warmup": 1}))


def test_real_kernels():
    found = method(settings("react"), Stage(epochs=1, kernels="real"))
    assert isinstance(found.layer_arguments()["input_quantizer"], quantizers.ApproxSign)
    assert found.kernel_quantizer is None


def test_a_stage_has_its_own_method():
    assert method(settings("bireal", kernels="xnor"), Stage(epochs=1, method="float")).base == "float"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activations": "tahn"}, "unknown activations: received 'tahn'; did you mean tanh?"),
        ({"name": "float", "activations": "tahn"}, "unknown activations: received 'tahn'; did you mean tanh?"),
        ({"kernels": "half"}, "unknown kernels: received 'half'; did you mean half_half"),
    ],
)
def test_unknown_parts(changes: dict[str, str], message: str):
    with pytest.raises(UsageError) as caught:
        method(settings(**changes), STAGE)
    assert message in str(caught.value)


@pytest.fixture
def data() -> Dataset:
    arrays = Arrays(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4, dtype=np.int32))
    return Dataset("four", tuple("abcd"), Normalization((0.0,), (1.0,)), arrays, arrays.take(np.array([], int)), arrays)


@pytest.mark.slow
def test_learned_scales_start_from_the_previous_stages_kernels(data: Dataset):
    recipe = Recipe.of("tiny", "bnnplus_r1", "digits")
    real = network(recipe, Stage(epochs=1, method="float"), data)
    kernel = real.get_layer("block1_conv1").get_weights()[0]
    real.get_layer("block1_conv1").set_weights([3 * kernel])
    binary = network(recipe, STAGE, data, previous=real).get_layer("block1_conv1")
    np.testing.assert_array_equal(binary.latent_kernel, 3 * kernel)
    np.testing.assert_allclose(binary.alpha, np.median(np.abs(3 * kernel).reshape(-1, 32), 0), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variance"), [("glorot_uniform", 2 / (9 * 32 + 9 * 32)), ("he_normal", 2 / (9 * 32))])
def test_kernel_initializers(data: Dataset, name: str, variance: float):
    tf.keras.utils.set_random_seed(3)
    recipe = Recipe.of("tiny", "bnnplus_r1", "digits").changed({"model.initializer": name})
    layer = network(recipe, STAGE, data).get_layer("block1_conv1")
    assert np.var(layer.latent_kernel) == pytest.approx(variance, rel=0.1)
    other = network(recipe, STAGE, data).get_layer("block1_conv1")
    assert (np.array(other.latent_kernel) != np.array(layer.latent_kernel)).any()


def test_the_precision_policy_is_the_recipes(data: Dataset):
    recipe = Recipe.of("tiny", "bireal", "digits").changed({"policy": "mixed_bfloat16"})
    built = network(recipe, STAGE, data)
    assert built.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert built.output.dtype == tf.float32
    assert tf.keras.mixed_precision.global_policy().name == "float32"
