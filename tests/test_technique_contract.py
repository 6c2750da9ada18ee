"""The contract of every quantizer, layer, penalty and method: saving, precision, tracing, training in any model."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, methods, quantizers, regularizers, testing
from kbnn.precision import precision

X = np.random.default_rng(0).normal(size=(4, 6, 6, 8)).astype(np.float32)

# Arguments other than the defaults, which must be kept by a configuration.
ARGUMENTS = {
    "AdaptiveSign": lambda: quantizers.AdaptiveSign(0.5, -0.1),
    "EDESign": lambda: quantizers.EDESign(0.5, 2.0),
    "EqualizedSign": lambda: quantizers.EqualizedSign(gradient=quantizers.EDESign(0.5, 2.0)),
    "HalfHalf": lambda: quantizers.HalfHalf(percentile=10.0, unbiased=True),
    "LeakySteSign": lambda: quantizers.LeakySteSign(0.1),
    "LibraSign": lambda: quantizers.LibraSign(gradient=quantizers.EDESign(0.5, 2.0)),
    "MagnitudeAwareSign": lambda: quantizers.MagnitudeAwareSign(0.5, "ste"),
    "OptimalMagnitude": lambda: quantizers.OptimalMagnitude("identity"),
    "SignSwish": lambda: quantizers.SignSwish(4.0, trainable_beta=True),
    "StandardizedSign": lambda: quantizers.StandardizedSign("xnor"),
}


def scaled_by_itself() -> tf.keras.Model:
    """Wraps a layer of two inputs as one with a single input."""
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
    "GroupNormalization": lambda: layers.GroupNormalization(2, affine=True),
    "ZeroPadChannels": lambda: layers.ZeroPadChannels(12),
}
PENALTIES = {
    "Euclidean": lambda: regularizers.Euclidean(0.25),
    "Manhattan": lambda: regularizers.Manhattan(0.25),
    "MedianLoss": lambda: regularizers.MedianLoss(0.25, layers=3),
}
METHODS = [
    *methods.names(),
    *("xnor+std+ml+bma", "irnet+ml+bma", "siman+code", "react+bma", "xnor+k", "float+relu", "react+real", "dorefa+std"),
]
# Layers are compiled in one precision: each compilation takes memory that TensorFlow does not free.
COMPILED = {"mixed_bfloat16": pytest.mark.xla}


def test_everything_public_is_in_the_contract():
    public = {value for value in vars(quantizers).values() if isinstance(value, type)}
    registered = {type(quantizers.get(name)) for name in quantizers.names()}
    assert registered == public - {quantizers.Estimator, quantizers.KernelQuantizer}
    assert set(LAYERS) == set(layers.__all__)
    penalties = {
        name
        for name, value in vars(regularizers).items()
        if isinstance(value, type) and issubclass(value, tf.keras.regularizers.Regularizer)
    }
    assert set(PENALTIES) == penalties - {"AdjustablePenalty"}


@pytest.mark.core("ste", "xnor")
@pytest.mark.parametrize("name", quantizers.names())
def test_quantizers(name):
    testing.check_quantizer(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
def test_quantizers_with_arguments(name):
    testing.check_quantizer(ARGUMENTS[name])


@pytest.mark.parametrize("name", [*LAYERS, *PENALTIES])
def test_config_round_trip(name):
    testing.check_configuration({**LAYERS, **PENALTIES}[name])


@pytest.mark.core("BatchMedian", "BinaryConv2D", "BinaryDense", "RPReLU")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_save_load_and_trace(name):
    model = testing.model_of(LAYERS[name]())
    for weight in model.weights:
        weight.assign(weight * 1.25)
    testing.check_traces(model, X)
    testing.check_saves(model, X)


@pytest.mark.slow
@pytest.mark.core("BatchMedian-float32", "BinaryConv2D-mixed_bfloat16", "BinaryDense-float32", "RPReLU-mixed_float16")
@pytest.mark.parametrize("policy", [pytest.param(each, marks=COMPILED.get(each, ())) for each in testing.POLICIES])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_every_precision(name, policy):
    with precision(policy):
        testing.check_layer(LAYERS[name]())


@pytest.mark.core("BatchMedian-float64", "BinaryConv2D-float16")
@pytest.mark.parametrize("policy", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_one_precision(name, policy):
    """Without mixed precision, weights are float32, too, and inputs may be float64."""
    tf.keras.utils.set_random_seed(0)
    expected = LAYERS[name]()(tf.constant(X))
    with testing.precision(policy):
        layer = LAYERS[name]()
        tf.keras.utils.set_random_seed(0)
        x = tf.constant(X, policy)
        with tf.GradientTape() as tape:
            y = layer(x)
            loss = tf.reduce_sum(y * y)
    assert y.dtype == policy
    tolerance = {"float64": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}[policy]
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, tolerance, tolerance * np.abs(expected).max())
    own = [weight for weight in layer.weights if "batch_normalization" not in weight.name]
    assert {weight.dtype.name for weight in own} <= {"float32"}
    assert None not in tape.gradient(loss, layer.trainable_weights)


@pytest.mark.core("bireal", "xnor")
@pytest.mark.parametrize("method", METHODS)
def test_methods(method):
    testing.check_method(method)


class Subclassed(tf.keras.Model):
    """Layers outside a functional graph, which are built when they are first called."""

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


@pytest.mark.slow
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


LOAD = """
import sys
import kbnn
import numpy as np
import tensorflow as tf
for path in sys.argv[2:]:
    model = tf.keras.models.load_model(path)
    np.save(path + ".npy", model(np.load(sys.argv[1])))
    if path.endswith(("model.keras", "saved")):
        model.compile("sgd", "mse")
        model.fit(np.load(sys.argv[1]), np.load(path + ".npy"), verbose=0)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_loads_and_trains_in_a_new_process_after_importing_kbnn_alone(tmp_path):
    made = {}
    for method in methods.names():
        network = testing.network(method)
        made |= {tmp_path / f"{method}{suffix}": network for suffix in (".keras", ".h5")}
    for policy in ("float32", "mixed_float16"):
        with precision(policy):
            model = everything()
        (tmp_path / policy).mkdir()
        made |= {tmp_path / policy / "model.keras": model, tmp_path / policy / "saved": model}
    for path, network in made.items():
        network.save(path)
        np.save(f"{path}-expected.npy", network(X))
    np.save(tmp_path / "x.npy", X)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    subprocess.run([sys.executable, "-c", LOAD, str(tmp_path / "x.npy"), *map(str, made)], env=environment, check=True)
    for path in made:
        np.testing.assert_allclose(np.load(f"{path}.npy"), np.load(f"{path}-expected.npy"), 1e-5, 1e-6)


def everything() -> tf.keras.Model:
    """One model with every layer."""
    x = inputs = tf.keras.Input(X.shape[1:])
    libra = lambda: layers.BinaryConv2D(8, 3, input_quantizer="ste", kernel_quantizer=ARGUMENTS["LibraSign"]())  # noqa: E731
    for name, make in {**LAYERS, "LibraSign": libra}.items():
        if name not in ("BinaryDense", "BinaryConv2D", "ZeroPadChannels"):
            x = make()(x)
    x = LAYERS["BinaryConv2D"]()(x)
    x = layers.BinaryDense(5, **methods.get("bireal").layer_arguments())(tf.keras.layers.Flatten()(x))
    return tf.keras.Model(inputs, tf.keras.layers.Activation("linear", dtype="float32")(x))
