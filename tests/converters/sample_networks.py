"""Networks for the tests to convert: plain Larq layers, with random weights and batch statistics."""

import warnings

import larq as lq
import larq_compute_engine
import numpy as np
import tensorflow as tf

from kbnn.converters.conversion import with_limits
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy, with_passes
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.converter import lower
from kbnn.converters.verify.verification import compare
from kbnn.native_output import held_stderr

layers = tf.keras.layers

BINARY = {
    "padding": "same",
    "pad_values": 1.0,
    "use_bias": False,
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "magnitude_aware_sign",
    "kernel_constraint": "weight_clip",
}


def convolution(x, filters, name, *, strides=1, kernel_size=3, **changes):
    """A binary convolution and its batch normalization."""
    x = lq.layers.QuantConv2D(filters, kernel_size, strides=strides, name=name, **{**BINARY, **changes})(x)
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def bireal(size=12, width=32, classes=10):
    """A Bi-Real style network: real stem, two binary convolutions with shortcuts, one of stride 2, real classifier."""
    image = tf.keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Add(name="add1")([x, convolution(x, width, "conv1")])
    short = layers.AveragePooling2D(2, padding="same", name="short_pool")(x)
    short = layers.Conv2D(2 * width, 1, use_bias=False, name="short")(short)
    short = layers.BatchNormalization(name="short_bn")(short)
    x = layers.Add(name="add2")([short, convolution(x, 2 * width, "conv2", strides=2)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return varied(randomized(tf.keras.Model(image, layers.Dense(classes, name="logits")(x), name="bireal")))


def plain(size=8, width=32, classes=10):
    """BNN's order without shortcuts: every convolution but the last can write bitpacked output."""
    image = tf.keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = convolution(x, width, "conv1")
    x = convolution(x, 40, "conv2")
    x = convolution(x, width, "conv3")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return varied(randomized(tf.keras.Model(image, layers.Dense(classes, name="logits")(x), name="plain")))


def grouped(filters, groups, **changes):
    return lq.layers.QuantConv2D(filters, 3, groups=groups, name="grouped", **{**BINARY, **changes})


def single(layer, shape=(6, 6, 64)):
    """One layer between input and output."""
    image = tf.keras.Input(shape, name="image")
    return tf.keras.Model(image, layer(image), name="single")


def randomized(model, seed=0):
    """Gives batch normalizations random weights and statistics, of both signs if possible."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights(
                [
                    generator.uniform(0.5, 1.5, size) * generator.choice([-1, 1], size, p=[0.1, 0.9]),
                    generator.normal(size=size),
                    generator.normal(size=size) * 0.3,
                    generator.uniform(0.5, 2.0, size),
                ]
            )
    return model


def varied(model, seed=7):
    """Kernels that depend on nothing but the seed, and logits that give different images different classes.

    An untrained network gives one class to all images, and any rounding agrees with it.
    """
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if "kernel" in weight.name:
            weight.assign(generator.normal(size=weight.shape, scale=np.prod(weight.shape[:-1]) ** -0.5))
    model.get_layer("logits").bias.assign_sub(model(images(model)).numpy().mean(axis=0))
    return model


def shaken(model, seed=0):
    """Moves every parameter and statistic away from its initial value; what must be positive stays positive."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.name.split("/")[-1].split(":")[0]
        if name in ("kernel", "strength"):
            continue
        if name in ("bias", "beta", "moving_mean", "moving_median", "zeta") or "relu" in variable.name:
            variable.assign(generator.normal(size=variable.shape, scale=0.5))
        else:
            variable.assign(generator.uniform(0.3, 1.5, size=variable.shape))
        if name in ("slope", "alpha"):
            variable.assign(generator.uniform(0.1, 0.6, size=variable.shape))
    return model


def raw(model):
    """The file that LCE's own converter makes, without kbnn."""
    with held_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flatbuffer.parse(larq_compute_engine.convert_keras_model(model))


def deployed(model, **options):
    """The file that kbnn makes, without checks."""
    graph = deploy(Reference(model), Options(**options))
    return lower(graph, Options(**options).to_json())


def in_int8(model):
    """The file with int8 activations that kbnn makes, without checks, even if float activations would be faster."""
    keras, options = Reference(model), with_passes(Options(), in_int8=True)
    options = with_limits(options, keras, images(model, 64, seed=2))
    return deployed(model, passes=options.passes, limits=options.limits)


def parity(model, file):
    """The result of `verify` for a file that has been read."""
    return compare(Reference(model), file, images(model))


def images(model, count=32, seed=1):
    """Standard normal input."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, *model.input_shape[1:])).astype(np.float32)
