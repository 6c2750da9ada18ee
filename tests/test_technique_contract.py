"""What every quantizer, layer, penalty and method keeps: saving, precision, tracing, training in any kind of model."""

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, methods, quantizers, regularizers

X = np.random.default_rng(0).normal(size=(4, 6, 6, 8)).astype(np.float32)
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")

ESTIMATORS = {
    "ApproxSign": quantizers.ApproxSign,
    "EDESign": lambda: quantizers.EDESign(0.5, 2.0),
    "LeakySteSign": lambda: quantizers.LeakySteSign(0.1),
    "SignSwish": lambda: quantizers.SignSwish(4.0, trainable_beta=True),
    "SteSign": quantizers.SteSign,
    "TanhSign": quantizers.TanhSign,
}
KERNEL_QUANTIZERS = {
    **ESTIMATORS,
    "DoReFaSign": quantizers.DoReFaSign,
    "HalfHalf": lambda: quantizers.HalfHalf(percentile=10.0),
    "LibraSign": lambda: quantizers.LibraSign(gradient=quantizers.EDESign(0.5, 2.0)),
    "MagnitudeAwareSign": quantizers.MagnitudeAwareSign,
    "OptimalMagnitude": lambda: quantizers.OptimalMagnitude("identity"),
    "StandardizedSign": lambda: quantizers.StandardizedSign("xnor"),
    "XNORSign": quantizers.XNORSign,
}


def scaled_by_itself() -> tf.keras.Model:
    """A layer of two inputs as a layer of one."""
    inputs = tf.keras.Input(X.shape[1:])
    return tf.keras.Model(inputs, layers.ActivationScale(3)([inputs, inputs]))


LAYERS = {
    "ActivationScale": scaled_by_itself,
    "BatchMedian": lambda: layers.BatchMedian(momentum=0.9),
    "BiasedPReLU": lambda: layers.BiasedPReLU(2),
    "BinaryConv2D": lambda: layers.BinaryConv2D(
        8,
        3,
        2,
        groups=2,
        input_quantizer=quantizers.SignSwish(trainable_beta=True),
        kernel_quantizer=quantizers.XNORSign(),
        kernel_regularizer=regularizers.MedianLoss(1e-3),
        scale="learned",
        scale_initializer="median",
        scale_regularizer=regularizers.Euclidean(1e-3),
        use_bias=True,
    ),
    "BinaryDense": lambda: tf.keras.Sequential(
        [
            tf.keras.layers.Flatten(),
            layers.BinaryDense(5, input_quantizer="approx_sign", kernel_quantizer=quantizers.MagnitudeAwareSign()),
        ]
    ),
    "ChannelShift": layers.ChannelShift,
    "ChannelShuffle": lambda: layers.ChannelShuffle(4),
    "GroupAwareNormalization": lambda: layers.GroupAwareNormalization(2, "group", layers.RPReLU(name="between")),
    "Maxout": layers.Maxout,
    "PReLU": layers.PReLU,
    "RPReLU": layers.RPReLU,
    "SampleNormalization": lambda: layers.SampleNormalization(2, affine=True),
    "ZeroPadChannels": lambda: layers.ZeroPadChannels(12),
}
PENALTIES = {
    "Euclidean": lambda: regularizers.Euclidean(0.25),
    "Manhattan": lambda: regularizers.Manhattan(0.25),
    "MedianLoss": lambda: regularizers.MedianLoss(0.25, layers=3),
}
METHODS = [*methods.names(), "xnor+std+ml+bma", "irnet+ml+bma", "siman+code", "react+bma", "xnor+k", "float+relu"]


@pytest.fixture(params=POLICIES)
def policy(request) -> Iterator[str]:
    tf.keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    tf.keras.mixed_precision.set_global_policy("float32")


def convolution(name: str) -> layers.BinaryConv2D:
    return layers.BinaryConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer=KERNEL_QUANTIZERS[name]())


def model_of(layer: tf.keras.layers.Layer) -> tf.keras.Model:
    inputs = tf.keras.Input(X.shape[1:])
    outputs = tf.keras.layers.Activation("linear", dtype="float32")(layer(inputs))
    return tf.keras.Model(inputs, outputs)


def cases() -> dict[str, tf.keras.layers.Layer]:
    return {**LAYERS, **{f"kernel {name}": lambda name=name: convolution(name) for name in KERNEL_QUANTIZERS}}


def gradients(model: tf.keras.Model) -> tuple[tf.Tensor, list[tf.Tensor]]:
    with tf.GradientTape() as tape:
        y = model(X, training=True)
        loss = tf.reduce_sum(tf.square(y)) + sum(model.losses)
    return loss, tape.gradient(loss, model.trainable_weights)


def test_everything_public_is_in_the_contract():
    public = {name for name in quantizers.__all__ if isinstance(getattr(quantizers, name), type)}
    assert set(KERNEL_QUANTIZERS) == public - {"Estimator", "KernelQuantizer"}
    assert set(LAYERS) == set(layers.__all__)
    penalties = {
        name
        for name, value in vars(regularizers).items()
        if isinstance(value, type) and issubclass(value, tf.keras.regularizers.Regularizer)
    }
    assert set(PENALTIES) == penalties


@pytest.mark.parametrize("name", [*KERNEL_QUANTIZERS, *LAYERS, *PENALTIES])
def test_config_round_trip(name):
    made = {**KERNEL_QUANTIZERS, **LAYERS, **PENALTIES}[name]()
    config = tf.keras.utils.serialize_keras_object(made)
    again = tf.keras.utils.deserialize_keras_object(config)
    assert type(again) is type(made)
    assert tf.keras.utils.serialize_keras_object(again) == config


@pytest.mark.parametrize("name", cases())
def test_saves_loads_and_traces(name, tmp_path):
    model = model_of(cases()[name]())
    for weight in model.weights:
        weight.assign(weight * 1.25)
    expected = model(X)
    np.testing.assert_allclose(tf.function(model)(X), expected, 1e-5, 1e-6)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), expected)
    assert len(loaded.losses) == len(model.losses)
    assert [w.shape for w in loaded.trainable_weights] == [w.shape for w in model.trainable_weights]


@pytest.mark.parametrize("name", cases())
def test_precision(name, policy):
    model = model_of(cases()[name]())
    layer = model.layers[1]
    assert layer(X).dtype == layer.compute_dtype
    assert {weight.dtype for weight in layer.weights} <= {tf.float32}
    loss, found = gradients(model)
    assert np.isfinite(loss)
    assert None not in found
    assert all(np.isfinite(gradient).all() for gradient in found)


class Subclassed(tf.keras.Model):
    """Layers that no functional graph connects, built when they are first called."""

    def __init__(self, method: str):
        super().__init__()
        chosen = methods.get(method)
        arguments = chosen.layer_arguments()
        self.stem = tf.keras.layers.Conv2D(8, 3)
        self.median = layers.BatchMedian()
        self.binary = layers.BinaryConv2D(8, 3, **arguments)
        self.pool = tf.keras.layers.GlobalAveragePooling2D()

    def call(self, inputs, training=None):
        return self.pool(self.binary(self.median(self.stem(inputs), training=training)))


@pytest.mark.parametrize("method", ["bnnplus_r1+ml", "irnet"])
def test_subclassed_models_train_save_and_load(method, tmp_path):
    model = Subclassed(method)
    model.compile("sgd", "mse")
    history = model.fit(X, np.ones((4, 8)), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    expected = model(X)
    model.save(tmp_path / "saved")
    loaded = tf.keras.models.load_model(tmp_path / "saved")
    np.testing.assert_allclose(loaded(X), expected, 1e-5, 1e-6)
    assert len(loaded.losses) == len(model.losses)


@pytest.mark.parametrize("method", METHODS)
def test_methods_in_every_precision(method, policy):
    chosen = methods.get(method)
    inputs = tf.keras.Input(X.shape[1:])
    x = chosen.activation(chosen.convolution(inputs, 8, 3, name="conv"), name="act")
    x = chosen.dense(tf.keras.layers.Flatten()(x), 5, name="dense")
    model = tf.keras.Model(inputs, tf.keras.layers.Activation("linear", dtype="float32")(x))
    assert model.get_layer("conv").compute_dtype == tf.keras.mixed_precision.global_policy().compute_dtype
    loss, found = gradients(model)
    assert np.isfinite(loss)
    assert None not in found
    assert all(np.isfinite(gradient).all() for gradient in found)


LOAD = """
import sys
import kbnn
import numpy as np
import tensorflow as tf
for path in sys.argv[2:]:
    model = tf.keras.models.load_model(path)
    np.save(path + ".npy", model(np.load(sys.argv[1])))
    model.compile("sgd", "mse")
    model.fit(np.load(sys.argv[1]), np.load(path + ".npy"), verbose=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"], indirect=True)
def test_loads_and_trains_in_a_fresh_process_with_kbnn_merely_imported(tmp_path, policy):
    x = inputs = tf.keras.Input(X.shape[1:])
    for name, make in {**LAYERS, "LibraSign": lambda: convolution("LibraSign")}.items():
        if name not in ("BinaryDense", "BinaryConv2D", "ZeroPadChannels"):
            x = make()(x)
    x = LAYERS["BinaryConv2D"]()(x)
    x = layers.BinaryDense(5, **methods.get("bireal").layer_arguments())(tf.keras.layers.Flatten()(x))
    model = tf.keras.Model(inputs, tf.keras.layers.Activation("linear", dtype="float32")(x))
    np.save(tmp_path / "x.npy", X)
    paths = [str(tmp_path / "model.keras"), str(tmp_path / "saved")]
    for path in paths:
        model.save(path)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path / "x.npy"), *paths], env=environment, check=True)
    for path in paths:
        np.testing.assert_allclose(np.load(path + ".npy"), model(X), 1e-5, 1e-6)
