"""The residual networks: depth, stems, shortcut designs, and the names by which weights load."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers
from kbnn.layers import BinaryConv2D
from kbnn.models import build, parts
from kbnn.training import Recipe, catalog

SMALL = {"input_shape": (32, 32, 3), "classes": 10, "width": 0.125}


def binary_names(model: tf.keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, BinaryConv2D)]


def kinds(model: tf.keras.Model, kind: type[tf.keras.layers.Layer]) -> list[str]:
    return [layer.name for layer in model.layers if type(layer) is kind]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "convolutions"), [("bireal18", 16), ("bireal34", 32), ("resnet20", 18), ("tiny", 4)])
def test_depth_is_that_of_the_name(name: str, convolutions: int):
    model = build(name, **({} if name == "tiny" else SMALL))
    assert len(binary_names(model)) == convolutions
    assert binary_names(model)[-1] == ("block2_conv2" if name == "tiny" else binary_names(model)[-2][:-1] + "2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("input_shape", "stem", "kernel_size", "after_stem"),
    [
        ((32, 32, 3), None, 3, 32),
        ((64, 64, 3), None, 3, 64),
        ((96, 96, 3), None, 7, 24),
        ((224, 224, 3), None, 7, 56),
        ((32, 32, 3), "imagenet", 7, 8),
        ((96, 96, 3), "cifar", 3, 96),
    ],
)
def test_the_stem_suits_the_image_or_is_chosen(
    input_shape: tuple[int, int, int], stem: str | None, kernel_size: int, after_stem: int
):
    model = build("bireal18", input_shape=input_shape, classes=10, width=0.125, stem=stem, blocks=(1, 1, 1, 1))
    assert model.get_layer("stem_conv").kernel_size == (kernel_size, kernel_size)
    assert model.get_layer("stage1_block1_conv1").input_shape[1] == after_stem
    assert model.get_layer("stage4_block1_conv2").output_shape[1] == after_stem // 8


@pytest.mark.parametrize("name", ["bireal18", "react18", "presb18", "aresb18"])
def test_the_cheaper_stem_has_at_most_a_quarter_of_the_work(name: str):
    size, channels = 96, 128 if name in ("presb18", "aresb18") else 64
    inner = channels // 4
    model = build(name, input_shape=(size, size, 3), classes=10, stem="quicknet", blocks=(1,))
    found = {layer.name: tuple(layer.output_shape[1:]) for layer in model.layers if layer.name.startswith("stem")}
    assert found["stem_conv1"] == (48, 48, inner)
    assert found["stem_conv2"] == (24, 24, inner)
    assert found["stem_bn"] == (24, 24, channels)
    weights = [27 * inner, 9 * inner, inner * channels]
    assert 48 * 48 * weights[0] + 24 * 24 * sum(weights[1:]) <= (48 * 48 * 147 * channels) / 4
    assert [model.get_layer(f"stem_conv{k}").count_params() for k in (1, 2, 3)] == weights


@pytest.mark.parametrize(
    ("stem", "parameters", "macs"),
    [
        ("narrow", [27 * 24, 24 * 64], 48 * 48 * 27 * 24 + 24 * 24 * 24 * 64),
        ("patches", [48 * 64], 24 * 24 * 48 * 64),
    ],
)
def test_stems_with_a_ninth_of_the_work(stem: str, parameters: list[int], macs: int):
    model = build("bireal18", input_shape=(96, 96, 3), classes=10, stem=stem, blocks=(1,))
    assert model.get_layer("stem_bn").output_shape[1:] == (24, 24, 64)
    convolutions = [layer for layer in model.layers if layer.name.startswith("stem_conv")]
    assert [layer.count_params() for layer in convolutions] == parameters
    assert macs < 48 * 48 * 147 * 64 / 8.9


def test_the_cheaper_stem_is_an_option_of_recipes():
    options = {"stem": "quicknet", "blocks": [1], "width": 0.25}
    tables = {
        "name": "cheaper",
        "data": {"name": "cifar10", "validation": 0.1, "batch": 8},
        "model": {"name": "bireal18", "method": "bireal", "options": options},
        "stage": [{"epochs": 1, "optimizer": "adam", "learning_rate": 0.01, "schedule": "cosine"}],
    }
    assert Recipe.parse(tables).model.options == options


@pytest.mark.slow
def test_three_shortcut_designs_over_the_same_kernels():
    networks = [build(name, **SMALL) for name in ("bireal18", "resnet18", "plain18")]
    kernels = [{name: network.get_layer(name).kernel.shape for name in binary_names(network)} for network in networks]
    assert kernels[0] == kernels[1] == kernels[2]
    additions = [len(kinds(network, tf.keras.layers.Add)) for network in networks]
    assert additions == [16, 8, 0]


@pytest.mark.slow
def test_shortcut_types():
    def shortcut_layers(shortcut_type: str) -> set[str]:
        model = build("bireal18", shortcut_type=shortcut_type, **SMALL)
        return {
            layer.name.removeprefix("stage2_block1_shortcut1_")
            for layer in model.layers
            if "stage2_block1_short" in layer.name
        }

    assert shortcut_layers("A") == {"pool", "pad"}
    assert shortcut_layers("B") == {"pool", "conv", "bn"}
    assert shortcut_layers("duplicate") == {"pool", "duplicate"}


def test_duplicated_channels_are_the_pooled_ones_twice():
    inputs = tf.keras.Input((4, 4, 3))
    model = tf.keras.Model(inputs, parts.shortcut(inputs, 6, 2, "duplicate", name="shortcut"))
    images = np.arange(48, dtype=np.float32).reshape(1, 4, 4, 3)
    pooled = images.reshape(1, 2, 2, 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(model(images), np.concatenate([pooled, pooled], -1))


@pytest.mark.slow
def test_xnor_s_block_normalizes_before_the_sign_and_adds_around_two():
    model = build("resnet20", "xnor", shortcuts="res", **{**SMALL, "width": 1.0})
    convolution = model.get_layer("stage1_block1_conv1")
    assert convolution.inbound_nodes[0].parent_nodes[0].layer.name == "stage1_block1_bn1"
    assert len(kinds(model, tf.keras.layers.Add)) == 9
    added = model.get_layer("stage1_block2_add2").inbound_nodes[0].parent_nodes
    assert {node.layer.name for node in added} == {"stage1_block2_conv2", "stage1_block1_add2"}


def test_bnnplus_s_resnet18_normalizes_before_each_sign():
    recipe = catalog.find("bnnplus-table2-resnet18/r1/ss5")
    small = {**SMALL, "blocks": (1, 1)}
    model = build(recipe.model.name, recipe.model.method, **{**small, **recipe.model.options})
    convolutions = [model.get_layer(name) for name in binary_names(model)]
    before = [layer.inbound_nodes[0].parent_nodes[0].layer for layer in convolutions]
    assert [layer.name for layer in before] == [layer.name.replace("conv", "bn") for layer in convolutions]
    assert all(isinstance(layer, tf.keras.layers.BatchNormalization) for layer in before)
    assert kinds(model, tf.keras.layers.Add) == ["stage1_block1_add2", "stage2_block1_add2"]
    plain = build("resnet18", recipe.model.method, **small)
    assert [layer.kernel.shape for layer in convolutions] == [
        plain.get_layer(name).kernel.shape for name in binary_names(plain)
    ]


@pytest.mark.slow
def test_bi_real_s_block_is_sign_convolution_normalization_addition():
    model = build("resnet20", **SMALL)
    chain = ["stage1_block2_conv1", "stage1_block2_bn1", "stage1_block2_add1"]
    for before, after in itertools.pairwise(chain):
        assert before in [node.layer.name for node in model.get_layer(after).inbound_nodes[0].parent_nodes]
    around = {node.layer.name for node in model.get_layer("stage1_block2_add1").inbound_nodes[0].parent_nodes}
    assert around == {"stage1_block2_bn1", "stage1_block1_add2"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "bireal18"])
def test_an_activation_after_each_addition_by_option(name: str):
    model = build(name, "xnor+std+ml+bma", activation="prelu", **SMALL)
    activations = [layer for layer in model.layers if type(layer) is layers.PReLU]
    assert len(activations) == len(binary_names(model)) == len(kinds(model, tf.keras.layers.Add))
    for layer in activations:
        assert isinstance(layer.inbound_nodes[0].parent_nodes[0].layer, tf.keras.layers.Add)
    assert not kinds(build(name, "react", activation="none", **SMALL), layers.RPReLU)
    assert len(kinds(build(name, "irnet", activation="maxout", **SMALL), layers.Maxout)) == len(activations)


@pytest.mark.slow
def test_width_multiplies_every_channel_count():
    narrow, wide = (build("bireal18", **{**SMALL, "width": width}) for width in (0.5, 1.0))
    for name in binary_names(wide):
        assert 2 * narrow.get_layer(name).filters == wide.get_layer(name).filters


def test_channels_round_to_a_multiple():
    assert [parts.channels(64, width, multiple=4) for width in (1.0, 0.3, 0.01)] == [64, 20, 4]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bireal18", "resnet20"])
def test_features_can_be_normalized_before_the_classifier(name: str):
    model = build(name, features_norm=True, **SMALL)
    assert model.get_layer("logits").inbound_nodes[0].parent_nodes[0].layer.name == "pool_bn"
    assert "pool_bn" not in [layer.name for layer in build(name, **SMALL).layers]


@pytest.mark.slow
def test_the_options_of_simans_code():
    model = build("resnet20", "siman+code", blocks=1, shortcut_type="A_subsample", stem_activation="relu")
    assert model.get_layer("stem_relu").inbound_nodes[0].parent_nodes[0].layer.name == "stem_bn"
    first = model.get_layer("stage2_block1_shortcut1_subsample")
    part = tf.keras.Model(first.input, model.get_layer("stage2_block1_shortcut1_pad").output)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 16)).astype(np.float32)
    expected = np.pad(x[:, ::2, ::2], [(0, 0), (0, 0), (0, 0), (8, 8)])
    np.testing.assert_array_equal(part(x), expected)
