"""Counts against manual calculations and the tables of the papers."""

import larq as lq
import pytest
import tensorflow as tf

from kbnn import layers, quantizers
from kbnn.accounting import Deployed, Kernel, count, deployed
from kbnn.errors import KbnnError, UsageError
from kbnn.models import build

keras = tf.keras.layers


def sequential(*stack: tf.keras.layers.Layer, input_shape: tuple[int, ...] = (8, 8, 4)) -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.Input(input_shape), *stack])


def binary(filters: int = 8, **kwargs: object) -> tf.keras.layers.Layer:
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    return lq.layers.QuantConv2D(
        filters, 3, padding="same", pad_values=1.0, **{"use_bias": False, **quantizers, **kwargs}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "method", "megabits", "flops"),
    [
        ("bireal18", "bireal", 33.6, 1.63e8),
        ("bireal34", "bireal", 43.7, 1.93e8),
        ("resnet18", "xnor", 33.7, 1.67e8),
        ("resnet34", "xnor", 43.9, 1.98e8),
        ("resnet18", "float", 374.1, 1.81e9),
        ("resnet34", "float", 697.3, 3.66e9),
    ],
)
def test_table_3_of_bi_real_net(network: str, method: str, megabits: float, flops: float):
    cost = count(build(network, method, input_shape=(224, 224, 3), classes=1000))
    assert cost.storage_bits / 1e6 == pytest.approx(megabits, rel=0.008)
    assert cost.flops == pytest.approx(flops, rel=0.008)


@pytest.mark.slow
def test_presb_net_against_resnet_18():
    options = {"input_shape": (32, 32, 3), "classes": 10}
    real, presb = build("resnet18", "float", **options), build("presb18", **options)
    assert count(presb).storage_bits / count(real).storage_bits == pytest.approx(0.0376, abs=0.00005)
    assert round(count(presb).storage_bits / count(real).storage_bits, 3) == 0.038
    assert count(real).flops / count(presb).flops == pytest.approx(44.5, abs=0.05)
    assert count(real).flops / count(presb, rule="presb").flops == pytest.approx(36.8, abs=0.05)


@pytest.mark.slow
def test_aresb_net_against_presb_net():
    """PresB-Net's paper: FLOPs(AresB-Net-18) / FLOPs(PresB-Net-18) is about 0.9."""
    flops = [count(build(name, input_shape=(32, 32, 3)), rule="presb").flops for name in ("aresb18", "presb18")]
    assert round(flops[0] / flops[1], 1) == 0.9


def test_presb_s_rule_counts_the_group_aware_normalization_like_its_parts():
    parts = (layers.GroupNormalization(), layers.BiasedPReLU(2), keras.BatchNormalization())
    apart, together = (
        count(sequential(*stack), rule="presb") for stack in (parts, (layers.GroupAwareNormalization(2),))
    )
    assert together.flops == apart.flops == 3 * 8 * 8 * 4
    assert together.real_parameters == apart.real_parameters == 4 + 2 * 4


def test_thresholds_are_one_value_per_channel_and_merge():
    for stack in ([layers.BatchMedian()], [layers.ChannelShift()], [layers.ChannelShift(), layers.BatchMedian()]):
        cost = count(sequential(*stack))
        assert (cost.thresholds, cost.real_parameters, cost.storage_bits, cost.flops) == (4, 4, 32 * 4, 0)


def test_learned_scales_and_trained_estimators_cost_nothing():
    kernel = {"kernel_quantizer": quantizers.SignSwish(trainable_beta=True), "scale": "learned"}
    layer = layers.BinaryConv2D(8, 3, input_quantizer=quantizers.SignSwish(trainable_beta=True), **kernel)
    cost = count(sequential(layer))
    assert len(layer.trainable_weights) == 4
    assert (cost.storage_bits, cost.real_parameters, cost.real_macs) == (288, 0, 0)


def test_a_binary_convolution_with_bias_by_hand():
    # 3·3·4·8 = 288 kernel bits, 64 positions; 8 biases of 32 bit; batch normalization 2 values for each of 8 channels.
    cost = count(sequential(binary(use_bias=True), keras.BatchNormalization()))
    assert (cost.binary_weights, cost.real_parameters) == (288, 8 + 16)
    assert (cost.binary_macs, cost.real_macs) == (288 * 64, 0)
    assert cost.storage_bits == 288 + 32 * 24
    assert cost.flops == 288 * 64 / 64


def test_xnor_stores_alpha_and_multiplies_each_output_with_alpha_and_k():
    plain, xnor = (count(build("tiny", method)) for method in ("bireal", "xnor"))
    assert xnor.real_parameters - plain.real_parameters == 32 + 32 + 64 + 64
    assert xnor.real_macs - plain.real_macs == 2 * (2 * 8 * 8 * 32 + 2 * 4 * 4 * 64)
    assert (xnor.binary_weights, xnor.binary_macs) == (plain.binary_weights, plain.binary_macs)


@pytest.mark.parametrize(
    ("layer", "weights", "macs"),
    [
        (keras.Conv2D(6, 3, strides=2, padding="same", use_bias=False), 3 * 3 * 4 * 6, 3 * 3 * 4 * 6 * 16),
        (keras.Conv2D(6, 3, groups=2, use_bias=False), 3 * 3 * 2 * 6, 3 * 3 * 2 * 6 * 36),
        (keras.Conv2DTranspose(6, 3, strides=2, use_bias=False), 3 * 3 * 4 * 6, 3 * 3 * 4 * 6 * 64),
        (keras.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False), 3 * 3 * 4 * 2, 3 * 3 * 4 * 2 * 36),
        (keras.SeparableConv2D(6, 3, use_bias=False), 3 * 3 * 4 + 4 * 6, (3 * 3 * 4 + 4 * 6) * 36),
        (keras.LocallyConnected2D(6, 3, use_bias=False), 36 * 36 * 6, 36 * 36 * 6),
        (keras.Dense(5, use_bias=False), 4 * 5, 4 * 5 * 64),
        (keras.LayerNormalization(axis=[1, 2, 3]), 2 * 8 * 8 * 4, 0),
        (keras.PReLU(shared_axes=[1, 2]), 4, 0),
        (keras.AveragePooling2D(), 0, 0),
        (keras.Dropout(0.5), 0, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, tf.keras.layers.Layer) else "",
)
def test_keras_layers_by_hand(layer: tf.keras.layers.Layer, weights: int, macs: int):
    cost = count(sequential(layer))
    assert (cost.real_parameters, cost.real_macs, cost.binary_macs) == (weights, macs, 0)


def test_channels_first_counts_the_same_positions():
    layer = keras.Conv2D(6, 3, data_format="channels_first", use_bias=False)
    assert count(sequential(layer, input_shape=(4, 8, 8))).real_macs == 3 * 3 * 4 * 6 * 36


def test_adabin_s_kernels_add_a_filter_of_ones_and_a_product_per_output():
    layer = layers.BinaryConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer=quantizers.EqualizedSign())
    cost = count(sequential(layer))
    assert (cost.binary_weights, cost.binary_macs) == (288 + 36, (288 + 36) * 64)
    assert (cost.real_parameters, cost.real_macs) == (8, 8 * 64)


def test_a_kernel_is_binary_only_when_both_sides_are():
    weights_only = count(sequential(binary(input_quantizer=None)))
    assert (weights_only.binary_weights, weights_only.binary_macs, weights_only.real_macs) == (288, 0, 288 * 64)
    for sign in (lq.quantizers.SteSign(), keras.Activation(lq.quantizers.SteSign())):
        inputs = tf.keras.Input((8, 8, 4))
        assert count(tf.keras.Model(inputs, binary(input_quantizer=None)(sign(inputs)))).binary_macs == 288 * 64


def test_two_bit_kernels_store_two_bits():
    two_bits = {"input_quantizer": lq.quantizers.DoReFa(2), "kernel_quantizer": lq.quantizers.DoReFa(2, mode="weights")}
    cost = count(sequential(binary(kernel_constraint=None, **two_bits)))
    assert (cost.storage_bits, cost.binary_weights, cost.real_macs) == (2 * 288, 0, 288 * 64)


def test_freezing_a_layer_does_not_change_its_cost():
    model = build("tiny")
    before = count(model)
    model.trainable = False
    assert count(model) == before


def test_a_shared_layer_is_stored_once_and_computed_twice():
    shared = keras.Conv2D(4, 3, padding="same", use_bias=False)
    inputs = tf.keras.Input((8, 8, 4))
    cost = count(tf.keras.Model(inputs, shared(shared(inputs))))
    assert (cost.real_parameters, cost.real_macs) == (144, 2 * 144 * 64)


def test_layers_of_nested_models_are_counted():
    cost = count(tf.keras.Sequential([tf.keras.Input((8, 8, 4)), sequential(binary()), keras.Flatten()]))
    assert cost.binary_macs == 288 * 64
    assert any("/" in layer.name for layer in cost.layers)


class Subclassed(tf.keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.convolution = binary()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.convolution(inputs)


def test_subclassed_models_need_an_input_shape():
    assert count(Subclassed(), input_shape=(8, 8, 4)).binary_macs == 288 * 64
    with pytest.raises(UsageError, match="give input_shape="):
        count(Subclassed())


@pytest.mark.slow
def test_unknown_sizes_need_an_input_shape():
    model = build("tiny", input_shape=(None, None, 1))
    assert count(model, input_shape=(8, 8, 1)).flops == count(build("tiny")).flops
    with pytest.raises(UsageError, match=r"stem_conv.*unknown size"):
        count(model)


def test_totals_are_sums_and_every_layer_is_there():
    model = build("tiny")
    cost = count(model)
    assert sorted(layer.name for layer in cost.layers) == sorted(layer.name for layer in model.layers[1:])
    for total in ("binary_weights", "real_parameters", "binary_macs", "real_macs", "storage_bits", "flops"):
        assert getattr(cost, total) == sum(getattr(layer, total) for layer in cost.layers)


def test_the_table_has_a_row_for_each_layer_that_costs():
    text = str(count(build("tiny")))
    assert "block2_shortcut1_conv" in text
    assert "block1_add1" not in text
    assert "100.0%" in text
    assert "?" not in text


def test_unknown_rules_get_suggestions():
    with pytest.raises(UsageError, match="did you mean bireal"):
        count(build("tiny"), rule="bi_real")


class Bilinear(tf.keras.layers.Layer):
    def build(self, input_shape: tf.TensorShape) -> None:
        self.form = self.add_weight(name="form", shape=(input_shape[-1], input_shape[-1]))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs @ self.form


def test_layers_that_multiply_in_unknown_ways_are_named_and_can_be_registered():
    with pytest.raises(KbnnError, match=r"cannot count layer 'bilinear'.*register"):
        count(sequential(Bilinear(name="bilinear")))
    deployed.register(Bilinear, lambda layer, node: Deployed((Kernel(16, 16 * 64),)))
    assert count(sequential(Bilinear())).real_macs == 1024


def test_tensorflow_functions_that_multiply_are_named():
    inputs = tf.keras.Input((8, 4))
    with pytest.raises(KbnnError, match="matmul"):
        count(tf.keras.Model(inputs, tf.matmul(inputs, inputs, transpose_b=True)))
