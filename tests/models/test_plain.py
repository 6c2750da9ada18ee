"""Networks without shortcuts: layer sizes as published."""

import pytest
import tensorflow as tf

from kbnn.layers import BinaryConv2D, BinaryDense
from kbnn.models import build


def outputs(model: tf.keras.Model, *kinds: type[tf.keras.layers.Layer]) -> list[tuple[int, ...]]:
    return [layer.output_shape[1:] for layer in model.layers if isinstance(layer, kinds)]


def test_vgg_small():
    model = build("vgg_small", "bnn")
    assert outputs(model, tf.keras.layers.Conv2D) == [
        (32, 32, 128),
        (32, 32, 128),
        (16, 16, 256),
        (16, 16, 256),
        (8, 8, 512),
        (8, 8, 512),
    ]
    assert len(outputs(model, BinaryConv2D)) == 5
    assert model.get_layer("flatten").output_shape == (None, 8192)


@pytest.mark.slow
def test_alexnet_at_both_sizes():
    imagenet = build("alexnet", "bnn")
    assert outputs(imagenet, tf.keras.layers.Conv2D) == [
        (56, 56, 96),
        (27, 27, 256),
        (13, 13, 384),
        (13, 13, 384),
        (13, 13, 256),
    ]
    assert imagenet.get_layer("flatten").output_shape == (None, 6 * 6 * 256)
    assert outputs(imagenet, BinaryDense) == [(4096,), (4096,)]
    cifar = build("alexnet", "bnn", input_shape=(32, 32, 3), classes=10)
    assert cifar.get_layer("conv1").kernel_size == (3, 3)
    assert cifar.get_layer("flatten").output_shape == (None, 3 * 3 * 256)


def test_dorefa_svhn():
    model = build("dorefa_svhn", "bnn")
    assert outputs(model, tf.keras.layers.Conv2D) == [
        (36, 36, 48),
        (18, 18, 64),
        (18, 18, 64),
        (7, 7, 128),
        (7, 7, 128),
        (5, 5, 128),
        (1, 1, 512),
    ]
    assert [layer.use_bias for layer in model.layers if isinstance(layer, tf.keras.layers.Conv2D)] == [True] + 6 * [
        False
    ]
    assert "bn1" not in [layer.name for layer in model.layers]


@pytest.mark.slow
def test_max_pooling_comes_after_batch_normalization():
    for name in ("vgg_small", "alexnet", "dorefa_svhn"):
        for layer in build(name, "bnn").layers:
            if isinstance(layer, tf.keras.layers.MaxPooling2D) and layer.name != "pool1":
                before = layer.inbound_nodes[0].parent_nodes[0].layer
                assert isinstance(before, tf.keras.layers.BatchNormalization), layer.name
