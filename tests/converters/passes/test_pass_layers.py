"""Every layer's rule computes the same as the layer, and the papers' blocks use as few operators as possible."""

import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn import layers, methods
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.operations import Opaque
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy

keras = tf.keras.layers
SHAPE = (6, 6, 64)


def activations(x):
    return keras.Activation("relu")(x)


LAYERS = {
    "activation": lambda x: keras.Activation("tanh")(x),
    "add": lambda x: keras.Add()([x, activations(x)]),
    "add, operator": lambda x: x + activations(x),
    "augmentation": lambda x: keras.RandomRotation(0.1)(keras.RandomFlip()(x)),
    "average pool": lambda x: keras.AveragePooling2D(3, strides=2, padding="same")(x),
    "batch median": lambda x: layers.BatchMedian()(x),
    "batch normalization": lambda x: keras.BatchNormalization()(x),
    "batch normalization, no scale": lambda x: keras.BatchNormalization(scale=False, center=False)(x),
    "biased prelu": lambda x: layers.BiasedPReLU(groups=2)(x),
    "channel shift": lambda x: layers.ChannelShift()(x),
    "channel shuffle": lambda x: layers.ChannelShuffle(2)(x),
    "concatenate": lambda x: keras.Concatenate()([x, activations(x), x]),
    "convolution": lambda x: keras.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x),
    "convolution, grouped": lambda x: keras.Conv2D(8, 3, groups=2, use_bias=False)(x),
    "convolution, dilated": lambda x: keras.Conv2D(8, 3, dilation_rate=2)(x),
    "dense": lambda x: keras.Dense(8)(keras.Flatten()(x)),
    "dense, on an image": lambda x: keras.Dense(8, activation="relu")(x),
    "depthwise convolution": lambda x: keras.DepthwiseConv2D(3, strides=2, padding="same", activation="relu")(x),
    "depthwise convolution, two filters": lambda x: keras.DepthwiseConv2D(3, depth_multiplier=2)(x),
    "dropout": lambda x: keras.Dropout(0.5)(x),
    "global average": lambda x: keras.GlobalAveragePooling2D()(x),
    "group-aware normalization": lambda x: layers.GroupAwareNormalization(2)(x),
    "group-aware normalization, code": lambda x: layers.GroupAwareNormalization(2, scope="group", activation=None)(x),
    "leaky relu": lambda x: keras.LeakyReLU(0.1)(x),
    "leaky relu, function": lambda x: tf.nn.leaky_relu(x, 0.3),
    "leaky relu, by slope": lambda x: keras.ReLU(negative_slope=0.2)(x),
    "maxout": lambda x: layers.Maxout()(x),
    "max pool": lambda x: keras.MaxPooling2D(2)(x),
    "prelu": lambda x: layers.PReLU()(x),
    "prelu, Keras's": lambda x: keras.PReLU(shared_axes=[1, 2])(x),
    "plus a constant": lambda x: x + 0.5,
    "relu": lambda x: keras.ReLU()(x),
    "relu, function": lambda x: tf.nn.relu6(x),
    "relu, lambda": lambda x: keras.Lambda(tf.nn.relu)(x),
    "relu, up to 6": lambda x: keras.ReLU(6.0)(x),
    "relu, up to 1.5": lambda x: keras.ReLU(1.5)(x),
    "rescaling": lambda x: keras.Rescaling(0.5, offset=-1.0)(x),
    "rprelu": lambda x: layers.RPReLU()(x),
    "group normalization": lambda x: layers.GroupNormalization()(x),
    "group normalization, groups": lambda x: layers.GroupNormalization(2, affine=True)(x),
    "separable convolution": lambda x: keras.SeparableConv2D(8, 3, strides=2, padding="same", activation="relu")(x),
    "separable convolution, dilated": lambda x: keras.SeparableConv2D(
        8, 3, dilation_rate=2, depth_multiplier=2, use_bias=False
    )(x),
    "separable convolution, 1x1": lambda x: keras.SeparableConv2D(8, 1, padding="same")(x),
    "subtract": lambda x: keras.Subtract()([x, activations(x)]),
    "subtract, operator": lambda x: activations(x) - x,
    "times a constant": lambda x: x * -0.25,
    "zero padding": lambda x: keras.ZeroPadding2D(((1, 0), (2, 1)))(x),
    "zero-padded channels": lambda x: layers.ZeroPadChannels(72)(x),
    "zero-padded channels, after": lambda x: layers.ZeroPadChannels(72, side="after")(x),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_rule_computes_what_the_layer_does(layer):
    image = tf.keras.Input(SHAPE, name="image")
    model = sample_networks.shaken(tf.keras.Model(image, layer(image)))
    graph = lift(Reference(model))
    assert not any(isinstance(node.operation, Opaque) for node in graph)
    x = sample_networks.images(model, 3)
    (output,) = graph.outputs.values()
    expected = model(x, training=False).numpy()
    np.testing.assert_allclose(graph.run({"image": tf.constant(x)})[output], expected, atol=2e-6 * np.ptp(expected))


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: keras.ReLU(threshold=0.1)(x),
        lambda x: keras.PReLU()(x),
        lambda x: keras.BatchNormalization(axis=1)(x),
        lambda x: keras.Concatenate(axis=1)([x, activations(x)]),
        lambda x: keras.Lambda(lambda x: tf.sin(x))(x),
        lambda x: tf.math.top_k(x, k=5)[0],
    ],
    ids=["unknown", "prelu per pixel", "rows", "concatenated rows", "lambda", "several outputs"],
)
def test_a_layer_without_a_rule_stays_a_keras_layer(layer):
    image = tf.keras.Input(SHAPE, name="image")
    model = sample_networks.shaken(tf.keras.Model(image, layer(image)))
    graph = lift(Reference(model))
    assert any(isinstance(node.operation, Opaque) for node in graph)
    x = sample_networks.images(model, 3)
    (output,) = graph.outputs.values()
    np.testing.assert_allclose(graph.run({"image": tf.constant(x)})[output], model(x), atol=1e-6)


def block_network(method, block):
    """A real stem, three blocks, a classifier."""
    image = tf.keras.Input((8, 8, 3), name="image")
    x = keras.BatchNormalization(name="stem_bn")(keras.Conv2D(32, 3, padding="same", name="stem")(image))
    for k in range(3):
        x = block(methods.get(method), x, f"block{k}")
    x = keras.Dense(5, name="logits")(keras.GlobalAveragePooling2D(name="pool")(x))
    return sample_networks.shaken(tf.keras.Model(image, x))


def residual(method, x, name):
    y = keras.BatchNormalization(name=f"{name}_bn")(method.convolution(x, 32, 3, name=f"{name}_conv"))
    return method.activation(keras.Add(name=f"{name}_add")([x, y]), name=f"{name}_act")


def plain(method, x, name):
    return keras.BatchNormalization(name=f"{name}_bn")(method.convolution(x, 32, 3, name=f"{name}_conv"))


THREE = ["LceQuantize", "LceBconv2d", "ADD"]
FIVE = [*THREE, "PRELU", "ADD"]
HEAD = ["MEAN", "FULLY_CONNECTED"]


@pytest.mark.core("bireal--")
@pytest.mark.parametrize(
    ("method", "block", "expected"),
    [
        ("bireal", residual, ["CONV_2D", *THREE * 3, *HEAD]),
        ("bireal+bma", residual, ["CONV_2D", *THREE * 3, *HEAD]),
        ("siman", residual, ["CONV_2D", *THREE * 3, *HEAD]),
        ("bnnplus_r1", residual, ["CONV_2D", *THREE * 3, *HEAD]),
        ("irnet", residual, ["CONV_2D", *THREE * 3, *HEAD]),
        # Clipping between the addition and the threshold keeps the two apart.
        ("irnet+bma", residual, ["CONV_2D", *THREE, *["ADD", *THREE] * 2, *HEAD]),
        ("react", residual, ["CONV_2D", *FIVE, *FIVE, *FIVE[:-1], *HEAD]),
        ("bnn", plain, ["CONV_2D", "LceQuantize", *["LceBconv2d"] * 3, *HEAD]),
        ("xnor+std+ml+bma", plain, ["CONV_2D", "LceQuantize", *["LceBconv2d"] * 3, *HEAD]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_operators_of_a_network(method, block, expected):
    model = block_network(method, block)
    file = sample_networks.deployed(model)
    assert [operator.name for operator in file.operators] == expected
    assert sample_networks.parity(model, file).passed


@pytest.mark.slow
def test_presbnets_half_block():
    """The shortest list so far; docs/deployment.md explains why each operator is needed."""
    image = tf.keras.Input((8, 8, 64), name="image")

    def half_block(x, k):
        s = layers.ChannelShuffle(2, name=f"shuffle{k}")(x)
        shifted = layers.ChannelShift(name=f"shift{k}")(s)
        y = methods.get("bireal").convolution(shifted, 32, 3, groups=2, name=f"conv{k}")
        y = layers.BiasedPReLU(2, name=f"before_ln{k}")(y)
        y = layers.BiasedPReLU(2, name=f"after_ln{k}")(layers.GroupNormalization(name=f"ln{k}")(y))
        y = keras.BatchNormalization(name=f"bn{k}")(y)
        y = layers.ZeroPadChannels(64, side="after", name=f"pad{k}")(y)
        return layers.RPReLU(name=f"act{k}")(keras.Add(name=f"add{k}")([y, s]))

    x = image
    for k in range(3):
        x = half_block(x, k)
    model = sample_networks.shaken(tf.keras.Model(image, x))
    file = sample_networks.deployed(model)
    names = [operator.name for operator in file.operators]
    middle = names[names.index("PAD") + 4 :][: len(names) // 3]
    shuffle = ["RESHAPE", "TRANSPOSE", "RESHAPE"]
    normalization = [*["MEAN"] * 4, *["MUL"] * 4, *["SUB"] * 2, *["ADD"] * 2, "RSQRT", "MUL"]
    joint = ["PAD", "ADD", "ADD", "PRELU", "ADD"]
    assert sorted(middle) == sorted([*shuffle, "LceQuantize", "LceBconv2d", "PRELU", *normalization, "PRELU", *joint])
    assert sample_networks.parity(model, file).passed


@pytest.mark.slow
def test_portable_files_of_grouped_networks_run_on_every_kernel():
    layer = methods.get("bireal")
    image = tf.keras.Input((6, 6, 64), name="image")
    model = sample_networks.shaken(tf.keras.Model(image, plain_grouped(layer, image)))
    file = sample_networks.deployed(model, kernel="portable")
    parity = sample_networks.parity(model, file)
    assert parity.passed
    assert all(run.refused is None for run in parity.runs)


def plain_grouped(method, x):
    x = method.convolution(x, 64, 3, groups=2, name="first")
    x = keras.BatchNormalization(name="bn")(layers.ChannelShuffle(2, name="shuffle")(x))
    return method.convolution(layers.ChannelShift(name="shift")(x), 64, 3, groups=2, name="second")


def test_options_reach_the_passes():
    layer = sample_networks.grouped(64, groups=2)
    reference = Reference(sample_networks.single(layer, SHAPE))
    assert len(deploy(reference, Options()).nodes) < len(deploy(reference, Options(kernel="portable")).nodes)
