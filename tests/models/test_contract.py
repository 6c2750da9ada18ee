"""The contract of every registered network with every method that fits it."""

from pathlib import Path

import numpy as np
import pytest
import small_networks as networks
import tensorflow as tf
from expected_operators import expected
from small_networks import CLASSES, Network

from kbnn import accounting, converters, methods, models, quantizers, structure, testing
from kbnn.precision import precision

PAIRS = [(network, method) for network in networks.distinct() for method in networks.methods_of(network)]


def fit(model: tf.keras.Model) -> float:
    """The loss of one step, run eagerly, which costs less than tracing a graph."""
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.legacy.SGD(0.01), loss, run_eagerly=True)
    return model.fit(testing.normal_images(model), np.arange(4) % CLASSES, verbose=0).history["loss"][0]


@pytest.mark.core("tiny-bireal")
@pytest.mark.parametrize(("network", "method"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_every_network_trains_saves_loads_and_converts_with_every_method(network: Network, method: str, tmp_path: Path):
    model = network.build(method)
    testing.check_trains(model, testing.normal_images(model))
    testing.settle(model)
    testing.check_saves(model, testing.normal_images(model), (".keras",))
    if methods.get(method).is_binary:
        artifact = converters.convert(model, tmp_path / "model.tflite", testing.normal_images(model, 8))
        check_file(model, artifact)
        assert artifact.audit.operators == expected(network.name, method)


@pytest.mark.slow
@pytest.mark.parametrize("network", networks.registered(), ids=lambda network: network.name)
def test_every_name_trains_at_its_own_depth(network: Network):
    model = network.build()
    assert np.isfinite(fit(model))
    blocks = models.get(network.name).options().get("blocks")
    if isinstance(blocks, tuple):
        assert sum(layer.kernel_size == (3, 3) for layer in structure.binary_layers(model)) == 2 * sum(blocks)
    cost = accounting.count(model)
    assert cost.binary_macs > cost.real_macs / 100
    assert all("?" not in layer.name + str(layer.output_shape) for layer in cost.layers)


@pytest.mark.slow
@pytest.mark.parametrize("network", networks.distinct(), ids=lambda network: network.name)
def test_mixed_precision_trains_on_float32_weights_to_float32_logits(network: Network):
    with precision("mixed_bfloat16"):
        model = network.build()
        assert np.isfinite(fit(model))
    assert model.compute_dtype == "bfloat16"
    assert model(testing.normal_images(model)).dtype == tf.float32
    assert {weight.dtype for weight in model.weights} == {tf.float32}


@pytest.mark.core("tiny")
@pytest.mark.parametrize("network", networks.distinct(), ids=lambda network: network.name)
def test_the_real_valued_twin_has_the_same_kernels_by_name(network: Network):
    testing.check_twin(network.build(), network.build("float"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["presb10", "aresb10"])
def test_grouped_networks_run_on_every_kernel_in_their_portable_form(name: str, tmp_path: Path):
    model = next(network for network in networks.distinct() if network.name == name).build()
    testing.settle(model)
    images = testing.normal_images(model, 8)
    artifact = converters.convert(model, tmp_path / "model.tflite", images, kernel="portable")
    assert [run.refused for run in artifact.parity.runs] == [None, None, None]
    assert artifact.parity.kernel_bits_equal
    grouped = sum(layer.groups == 2 for layer in structure.binary_layers(model))
    assert artifact.audit.operators["LceBconv2d"] == len(structure.binary_layers(model)) + grouped


def check_file(model: tf.keras.Model, artifact: converters.Artifact) -> None:
    """`convert` has compared every layer and every kernel bit with Keras on every kernel."""
    assert artifact.parity.passed
    assert artifact.parity.kernel_bits_equal
    assert artifact.audit.silent_fallbacks == []
    operators, binary = artifact.audit.operators, structure.binary_layers(model)
    # Kernels with a centre add a filter of ones and a real 1x1 convolution to the binary convolution.
    centred = sum(isinstance(layer.kernel_quantizer, quantizers.EqualizedSign) for layer in binary)
    assert operators["LceBconv2d"] == len(binary) + centred
    assert operators["CONV_2D"] == centred + sum(type(layer) is tf.keras.layers.Conv2D for layer in model.layers)
    grouped = any(getattr(layer, "groups", 1) > 1 for layer in binary)
    ran = [run.kernel for run in artifact.parity.runs if run.refused is None]
    assert ran == (["indirect", "reference"] if grouped else ["default", "indirect", "reference"])


def test_batch_normalizations_settle_on_the_statistics_of_images():
    """Means may be moved by a few twentieths of the deviation."""
    layer = tf.keras.layers.BatchNormalization(momentum=0.9)
    images = np.random.default_rng(0).normal(3.0, 2.0, (50, 4, 4, 2)).astype(np.float32)
    testing.settle_on(tf.keras.Sequential([tf.keras.Input((4, 4, 2)), layer]), images)
    np.testing.assert_allclose(layer.moving_variance, images.var((0, 1, 2), ddof=1), rtol=1e-4)
    moved = (layer.moving_mean.numpy() - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    assert 0 < np.abs(moved).max() < 0.25
    assert layer.momentum == 0.9
