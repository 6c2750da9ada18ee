"""Networks like those of larq-zoo, with Keras's and Larq's own layers: all 1-bit layers are bitpacked."""

import larq as lq
import pytest
import sample_networks
import tensorflow as tf

from kbnn.converters import convert

layers = tf.keras.layers
BINARY = sample_networks.BINARY
STRONG = {**BINARY, "input_quantizer": "approx_sign"}


def batch_normalization(**options):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)


def quicknet(image):
    """ReLU as the activation of a convolution, blur pooling, a depthwise stem; each section is a nested model."""

    def section(filters, name):
        inputs = layers.Input((8, 8, filters) if name == "section1" else (4, 4, filters))
        x = inputs
        for _ in range(2):
            y = lq.layers.QuantConv2D(filters, 3, activation="relu", **{**BINARY, "kernel_quantizer": "ste_sign"})(x)
            x = layers.Add()([batch_normalization()(y), x])
        return tf.keras.Model(inputs, x, name=name)

    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.Activation("relu")(batch_normalization()(x))
    x = batch_normalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    x = batch_normalization(scale=False)(layers.Conv2D(32, 1, use_bias=False)(x))
    x = section(32, "section1")(x)
    x = layers.MaxPooling2D(2, strides=1, padding="same")(layers.Activation("relu")(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, trainable=False)(x)
    x = section(64, "section2")(batch_normalization()(layers.Conv2D(64, 1, use_bias=False)(x)))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return layers.Activation("softmax")(layers.Dense(10)(x))


def alexnet(image):
    """A binary kernel on the image, pooling before batch normalization, zero padding, binary dense layers."""
    bare = {"use_bias": False, "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    both = {**bare, "input_quantizer": "ste_sign"}
    x = lq.layers.QuantConv2D(32, 3, padding="same", **bare)(image)
    x = batch_normalization(scale=False)(layers.MaxPooling2D(3, strides=2)(x))
    x = lq.layers.QuantConv2D(64, 3, padding="same", **both)(x)
    x = batch_normalization(scale=False)(layers.MaxPooling2D(2)(x))
    x = batch_normalization(scale=False)(lq.layers.QuantConv2D(32, 3, padding="same", **both)(x))
    for units in (64, 10):
        x = batch_normalization(scale=False)(lq.layers.QuantDense(units, **both)(layers.Flatten()(x)))
    return layers.Activation("softmax")(x)


def densenet(image):
    """Each layer's output is concatenated to its input; dilated convolutions."""
    x = batch_normalization()(layers.Conv2D(32, 3, padding="same", use_bias=False)(image))
    for rate in (1, 2):
        y = lq.layers.QuantConv2D(32, 3, dilation_rate=rate, **BINARY)(batch_normalization()(x))
        x = layers.Concatenate()([x, y])
    x = layers.Conv2D(32, 1, use_bias=False)(layers.ReLU()(batch_normalization()(x)))
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2)(x)))


class Rescale(layers.Layer):
    """A learned scale per row, column and channel."""

    def build(self, shape):
        _, height, width, channels = shape
        self.scales = [
            self.add_weight(f"scale{k}", (size,), initializer=tf.keras.initializers.RandomUniform(0.5, 1.5))
            for k, size in enumerate((height, width, channels))
        ]

    def call(self, inputs):
        rows, columns, channels = self.scales
        return inputs * tf.reshape(rows, (1, -1, 1, 1)) * tf.reshape(columns, (1, 1, -1, 1)) * channels


def real_to_binary(image):
    """A learned scale for every position, a gate that depends on the input, PReLU."""
    x = batch_normalization()(layers.Conv2D(32, 3, padding="same", use_bias=False)(image))
    for gated in (False, True):
        y = lq.layers.QuantConv2D(32, 3, **STRONG)(batch_normalization()(x))
        if gated:
            z = layers.Dense(8, activation="relu")(layers.GlobalAveragePooling2D()(x))
            gate = layers.Reshape((1, 1, 32))(layers.Dense(32, activation="sigmoid")(z))
            y = layers.Multiply()([y, gate])
        else:
            y = Rescale()(y)
        x = layers.Add()([x, layers.PReLU(shared_axes=[1, 2])(y)])
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def melius(image):
    """New channels are concatenated, then improved by an addition to only these, with TensorFlow's own operations."""
    x = batch_normalization()(layers.Conv2D(32, 3, padding="same", use_bias=False)(image))
    y = lq.layers.QuantConv2D(32, 3, **STRONG)(batch_normalization()(x))
    x = tf.concat([x, y], axis=-1)
    y = lq.layers.QuantConv2D(32, 3, **STRONG)(batch_normalization()(x))
    x = tf.concat([x[..., :32], x[..., 32:] + y], axis=-1)
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


@pytest.mark.core("quicknet--")
@pytest.mark.parametrize(
    ("network", "binary", "real"),
    [(quicknet, 4, 6), (alexnet, 4, 1), (densenet, 2, 3), (real_to_binary, 2, 4), (melius, 2, 2)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_networks_like_those_of_larq_zoo(network, binary, real, tmp_path):
    image = layers.Input((16, 16, 3), name="image")
    model = sample_networks.shaken(tf.keras.Model(image, network(image)))
    artifact = convert(model, tmp_path / "model.tflite")
    assert len(artifact.audit.binary_convolutions) == binary
    assert len(artifact.audit.float_convolutions) == real
    assert artifact.audit.silent_fallbacks == []
    assert artifact.audit.pairs == 0
