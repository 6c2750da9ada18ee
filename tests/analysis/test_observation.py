"""Observing networks of every kind: functional, nested, subclassed, with kbnn's and with Larq's layers."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from kbnn import analysis, datasets, layers, models, quantizers, structure
from kbnn.analysis.observation import images_of, observe
from kbnn.analysis.weight_history import WeightHistory
from kbnn.errors import UsageError

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)


def binary(filters: int = 8, **kwargs: object) -> tf.keras.layers.Layer:
    return layers.BinaryConv2D(
        filters, 3, input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign", name="binary", **kwargs
    )


class Subclassed(tf.keras.Model):
    def __init__(self, layer: tf.keras.layers.Layer) -> None:
        super().__init__()
        self.layer = layer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.layer(2.0 * inputs - 1.0)


def functional(layer: tf.keras.layers.Layer) -> tf.keras.Model:
    inputs = tf.keras.Input((8, 8, 1))
    return tf.keras.Model(inputs, layer(2.0 * inputs - 1.0))


def nested(layer: tf.keras.layers.Layer) -> tf.keras.Model:
    return tf.keras.Sequential([functional(layer), tf.keras.layers.GlobalAveragePooling2D()])


@pytest.mark.parametrize("build", [functional, nested, Subclassed])
def test_records_the_input_of_the_sign(build: type):
    layer = binary()
    model = build(layer)
    before = model(IMAGES).numpy()
    (seen,) = observe(model, IMAGES)
    np.testing.assert_allclose(seen.activations, 2 * IMAGES - 1, rtol=1e-6)
    np.testing.assert_array_equal(seen.signs, np.where(2 * IMAGES - 1 >= 0, 1, -1))
    np.testing.assert_array_equal(seen.latent, layer.kernel.latent_variable.numpy())
    np.testing.assert_array_equal(np.sign(seen.binary), np.where(seen.latent >= 0, 1, -1))
    np.testing.assert_array_equal(model(IMAGES).numpy(), before)
    assert layer.call.__func__ is type(layer).call


def test_plain_larq_layers_count_too():
    model = functional(
        lq.layers.QuantConv2D(
            4, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="q", kernel_constraint="weight_clip"
        )
    )
    (seen,) = observe(model, IMAGES)
    assert seen.binary.shape == (3, 3, 1, 4)
    assert set(np.unique(seen.binary)) == {-1, 1}


def test_a_learned_scale_is_recorded():
    (seen,) = observe(functional(binary(scale="learned")), IMAGES)
    assert seen.scale.shape == (8,)


def test_statistics_are_float32_under_mixed_precision():
    layer = binary(dtype=tf.keras.mixed_precision.Policy("mixed_bfloat16"))
    (seen,) = observe(functional(layer), IMAGES)
    assert seen.activations.dtype == seen.binary.dtype == np.float32


def test_a_real_valued_network_is_refused_with_advice():
    with pytest.raises(UsageError, match="has no binary layer"):
        structure.require_binary_layers(models.build("tiny", method="float"))


def test_several_inputs_are_refused():
    inputs = [tf.keras.Input((8, 8, 1)), tf.keras.Input((8, 8, 1))]
    model = tf.keras.Model(inputs, binary()(tf.keras.layers.Add()(inputs)), name="two")
    with pytest.raises(UsageError, match="'two' has 2 inputs: only networks with one input are analyzed"):
        observe(model, IMAGES)


@pytest.mark.slow
def test_images_come_from_the_held_out_split():
    data = datasets.load("digits")
    np.testing.assert_array_equal(images_of(data, 5), data.inputs(data.validation)[:5])
    np.testing.assert_array_equal(
        images_of(datasets.load("digits", validation=0), 5),
        data.inputs(datasets.load("digits", validation=0).train)[:5],
    )
    assert len(images_of(IMAGES, 3)) == 3


def test_the_report_adds_up():
    report = analysis.report(models.build("tiny", method="bireal"), IMAGES)
    assert [layer.name for layer in report.layers][:2] == ["block1_conv1", "block1_conv2"]
    assert report.samples == 4
    assert report.weight_entropy == pytest.approx(sum(x.weight_entropy for x in report.layers) * np.log10(2))
    assert all(x.quantization_error == x.quantization_error_sign for x in report.layers)
    assert all(x.name in str(report) for x in report.layers)


@pytest.mark.slow
def test_the_input_of_a_batch_median_is_recorded():
    model = models.build("tiny", method="xnor+bma")
    median = model.get_layer("block1_conv1_median")
    median.moving_median.assign(0.25)
    median.beta.assign(np.linspace(-0.1, 0.1, 32))
    seen = observe(model, IMAGES)[0]
    stem = tf.keras.Model(model.inputs, median.input)(IMAGES).numpy()
    np.testing.assert_allclose(seen.activations, stem, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(seen.signs, np.where(stem >= 0.25 - np.linspace(-0.1, 0.1, 32), 1, -1))
    np.testing.assert_allclose(seen.threshold, 0.25 - np.linspace(-0.1, 0.1, 32), rtol=1e-6)


def thresholded(layer: tf.keras.layers.Layer, **arguments: object) -> tf.keras.Model:
    inputs = tf.keras.Input((8, 8, 1))
    convolution = {"input_quantizer": "ste", "kernel_quantizer": "ste", **arguments}
    return tf.keras.Model(inputs, layers.BinaryConv2D(4, 3, **convolution)(layer(inputs)))


def test_the_threshold_is_that_of_any_layer_before_the_sign():
    median, shift = layers.BatchMedian(), layers.ChannelShift()
    models = [thresholded(median), thresholded(shift)]
    median.moving_median.assign(0.25)
    shift.bias.assign([-0.25])
    for model in models:
        (seen,) = observe(model, IMAGES)
        np.testing.assert_array_equal(seen.activations, IMAGES)
        np.testing.assert_array_equal(seen.threshold, [0.25])
        np.testing.assert_array_equal(seen.signs, np.where(IMAGES >= 0.25, 1, -1))


def test_the_threshold_of_adabin_is_its_learned_centre():
    model = thresholded(tf.keras.layers.Layer(), input_quantizer=quantizers.AdaptiveSign(2.0, 0.25))
    (seen,) = observe(model, IMAGES)
    np.testing.assert_array_equal(seen.threshold, 0.25)
    np.testing.assert_array_equal(seen.signs, np.where(IMAGES >= 0.25, 1, -1))
    (layer,) = analysis.report(model, IMAGES).layers
    below, above = IMAGES[IMAGES < 0.25].astype(float), IMAGES[IMAGES >= 0.25].astype(float)
    expected = (below.var() * below.size + above.var() * above.size) / np.sum(IMAGES.astype(float) ** 2)
    assert layer.quantization_error == pytest.approx(expected)


def test_layers_of_nested_models_may_share_a_name():
    inputs = tf.keras.Input((8, 8, 1))
    x = functional(binary(1))(inputs)
    model = tf.keras.Model(inputs, functional(binary(1, scale="learned"))(x))
    first, second = observe(model, IMAGES)
    assert (first.name, second.name) == ("binary", "binary_2")
    np.testing.assert_allclose(first.activations, 2 * IMAGES - 1, rtol=1e-6)
    np.testing.assert_allclose(second.activations, 2 * model.layers[1](IMAGES) - 1, rtol=1e-5)
    history = WeightHistory()
    for epoch in range(3):
        history.record(model, epoch)
    assert history.layers == ("binary", "binary_2")
    assert history.scales["binary_2"].shape == (3, 1)


def test_layers_that_are_not_called_are_left_out():
    model = Subclassed(binary())
    model.auxiliary = binary()
    assert len(observe(model, IMAGES)) == 1


@pytest.mark.slow
def test_a_batch_median_evens_out_the_signs_of_shifted_images():
    images = 3.0 + IMAGES
    inputs = tf.keras.Input((8, 8, 1))
    model = tf.keras.Model(inputs, binary()(layers.BatchMedian(momentum=0.0, name="binary_median")(inputs)))
    model(images, training=True)
    (with_median,) = analysis.report(model, images).layers
    (without,) = analysis.report(functional(binary()), images).layers
    # The rank of the estimated median may be off by half a percent.
    assert with_median.activation_positive == pytest.approx(0.5, abs=0.01)
    assert with_median.activation_entropy > 0.999 > without.activation_entropy
    assert with_median.quantization_error == pytest.approx(with_median.quantization_error_median, rel=0.05)
    assert with_median.quantization_error < 0.1
