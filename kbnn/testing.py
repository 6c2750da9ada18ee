"""Checks of the contract of quantizers, methods and networks, for testing your own.

kbnn's own tests run the same checks on everything that is registered.

>>> def test_mine():
...     kbnn.testing.check_quantizer("mine")
...     kbnn.testing.check_method("mine")
...     kbnn.testing.check_model("mine", input_shape=(8, 8, 3), width=0.5)
"""

import importlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import larq as lq
import numpy as np
import tensorflow as tf

from kbnn import accounting, methods, quantizers, structure, weights
from kbnn.layers import BinaryConv2D
from kbnn.precision import precision
from kbnn.training.networks import build as build_network

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
Make = Callable[[], lq.quantizers.Quantizer]

# How far `settle_on` moves means, in standard deviations.
_JITTER = 0.05
_SHAPE = (6, 6, 8)
_CLASSES = 3


def check_quantizer(quantizer: str | type | lq.quantizers.Quantizer | Make) -> None:
    """Checks a quantizer: levels, edge cases, configuration, precision, gradients, saving, and the fused training step.

    Args:
        quantizer: a registered name, a class, a quantizer, or a function that creates one.

    Raises:
        AssertionError: it breaks the contract; the message says how.
    """
    make = _maker(quantizer)
    kind = quantizers.kind_of(make())
    _require(kind is not None, f"{_name(make)} declares no kind: decorate it with @kbnn.quantizers.register")
    _require(structure.bits(make()) == 1, f"{_name(make)} has precision {make().precision}, not 1")
    check_configuration(make)
    _check_levels(make)
    for what, x in _EDGES.items() if kind == "kernel" else [("edges", _ACTIVATIONS), *_EDGES.items()]:
        _check_finite(make, what, x)
    for policy in POLICIES:
        with precision(policy):
            check_layer(_convolution(make))
    model = model_of(_convolution(make))
    check_traces(model, _inputs(_SHAPE))
    check_saves(model, _inputs(_SHAPE))


def check_configuration(make: Callable[[], object]) -> None:
    """Checks that a layer, quantizer or penalty is restored from its Keras configuration without changes."""
    made = make()
    config = tf.keras.utils.serialize_keras_object(made)
    again = tf.keras.utils.deserialize_keras_object(config)
    _require(type(again) is type(made), f"{type(made).__name__} is restored as {type(again).__name__}")
    received = tf.keras.utils.serialize_keras_object(again)
    _require(received == config, f"the configuration of {type(made).__name__} changes: {config} becomes {received}")


def check_layer(layer: tf.keras.layers.Layer) -> None:
    """Checks a layer with one input under the current policy: precision, gradients, training equal to inference."""
    model, x = model_of(layer), _inputs(_SHAPE)
    name = layer.name
    dtype = layer(x).dtype
    _require(dtype == layer.compute_dtype, f"{name} returns {dtype.name}, the policy computes in {layer.compute_dtype}")
    stored = {weight.dtype.name for weight in layer.weights}
    _require(stored <= {"float32"}, f"{name} stores weights as {sorted(stored)}, not as float32")
    if isinstance(layer, BinaryConv2D):
        # The outputs, sums of signs, may differ by rounding only.
        tolerance = {"float32": 1e-4}.get(layer.compute_dtype, 5e-2)
        received, expected = (tf.cast(layer(x, training=training), tf.float32) for training in (True, False))
        close = np.allclose(received, expected, tolerance, tolerance * np.abs(expected).max())
        _require(close, f"{name} computes different outputs in training and at inference")
    check_gradients(model, x)


def check_gradients(model: tf.keras.Model, x: np.ndarray) -> None:
    """Checks that loss and gradients are finite, and that every trainable weight has a gradient."""
    with tf.GradientTape() as tape:
        y = tf.cast(model(x, training=True), tf.float32)
        loss = tf.reduce_sum(tf.square(y)) + sum(model.losses)
    _require(bool(np.isfinite(loss)), f"the loss is {float(loss)}")
    for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True):
        _require(gradient is not None, f"weight {weight.name} has no gradient")
        _require(bool(np.isfinite(gradient).all()), f"the gradient of weight {weight.name} is not finite")


def check_traces(model: tf.keras.Model, x: np.ndarray) -> None:
    """Checks that a model computes the same outputs in a graph as eagerly."""
    np.testing.assert_allclose(tf.function(model)(x, training=False), model(x, training=False), 1e-5, 1e-5)


def check_saves(model: tf.keras.Model, x: np.ndarray, suffixes: Sequence[str] = (".keras", ".h5")) -> None:
    """Checks that a model is restored from a file with equal outputs, losses and trainable weights."""
    expected = np.asarray(model(x, training=False))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in suffixes:
            path = Path(folder) / f"model{suffix}"
            _save(model, path)
            loaded = tf.keras.models.load_model(path)
            np.testing.assert_array_equal(loaded(x, training=False), expected, err_msg=f"loaded from {suffix}")
            _require(len(loaded.losses) == len(model.losses), f"penalties are missing after loading from {suffix}")
            shapes = [[weight.shape for weight in m.trainable_weights] for m in (model, loaded)]
            _require(shapes[0] == shapes[1], f"trainable weights differ after loading from {suffix}")


def check_method(method: str | methods.Method) -> None:
    """Checks a method on a small network: every precision, gradients, saving, and weights from its real-valued twin.

    Args:
        method: a registered name, with or without modifiers, or a `kbnn.methods.Method`.

    Raises:
        AssertionError: it breaks the contract; the message says how.
    """
    for policy in POLICIES:
        with precision(policy):
            model = network(method)
            computed = model.get_layer("conv").compute_dtype
            _require(computed == tf.keras.mixed_precision.global_policy().compute_dtype, f"conv computes in {computed}")
            check_gradients(model, _inputs(_SHAPE))
    model = network(method)
    check_saves(model, _inputs(_SHAPE))
    left = weights.transfer(network("float"), model)
    _require(not [name for name in left if name.endswith("kernel")], f"kernels differ from the twin's: {left}")
    if _method(method).is_binary:
        _require(bool(structure.binary_layers(model)), "the method binarizes, but the network has no binary layer")


def check_model(
    name: str, method: str | methods.Method | None = None, *, convert: bool = True, **arguments: object
) -> None:
    """Checks a registered network: one training step, saving, its real-valued twin, its cost, and its converted file.

    Args:
        name: a registered network.
        method: the binarization method; by default the network's own.
        convert: whether to convert the network, which takes longest.
        **arguments: `input_shape`, `classes` and options, for a small network.

    Raises:
        AssertionError: it breaks the contract; the message says how.
        ConversionError: the network does not convert.
    """

    def build(method: str | methods.Method | None) -> tf.keras.Model:
        return build_network(name, method, **{"classes": _CLASSES, **arguments})

    model = build(method)
    images = _inputs(model.input_shape[1:])
    check_trains(model, images)
    settle(model)
    check_saves(model, images, (".keras",))
    check_twin(model, build("float"))
    if convert and structure.binary_layers(model):
        check_converts(model, images)


def check_trains(model: tf.keras.Model, images: np.ndarray) -> None:
    """Checks one training step: a finite loss, changed weights, and finite logits."""
    before = [weight.numpy() for weight in model.trainable_weights]
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Runs eagerly, which is faster than tracing a graph for a single step.
    model.compile(tf.keras.optimizers.legacy.SGD(0.01), loss, run_eagerly=True)
    labels = np.arange(len(images)) % model.output_shape[-1]
    found = model.fit(images, labels, verbose=0).history["loss"][0]
    _require(bool(np.isfinite(found)), f"the loss of the first step is {found}")
    moved = [not np.array_equal(a, b.numpy()) for a, b in zip(before, model.trainable_weights, strict=True)]
    _require(float(np.mean(moved)) > 0.75, f"only {np.mean(moved):.0%} of the weights change in a step")
    logits = model(images, training=False).numpy()
    _require(bool(np.isfinite(logits).all()), "logits are not finite")


def check_twin(model: tf.keras.Model, twin: tf.keras.Model) -> None:
    """Checks that a network accepts all kernels of its real-valued twin, and that the twin has no binary MACs."""
    left = weights.transfer(twin, model)
    _require(not [name for name in left if name.endswith("kernel")], f"kernels differ from the twin's: {left}")
    for layer in structure.binary_layers(model):
        np.testing.assert_array_equal(
            structure.latent_kernel(layer), structure.latent_kernel(twin.get_layer(layer.name)), err_msg=layer.name
        )
    _require(accounting.count(twin).binary_macs == 0, "the real-valued twin has binary MACs")


def check_converts(model: tf.keras.Model, images: np.ndarray) -> None:
    """Checks that a network converts to a file that is equal to Keras and has no fallbacks."""
    # Imported here, because the converters depend on kbnn and not the other way round.
    converters = importlib.import_module("kbnn.converters")
    with tempfile.TemporaryDirectory() as folder:
        artifact = converters.convert(model, Path(folder) / "model.tflite", np.concatenate([images, images]))
    _require(artifact.parity.passed, f"the file differs from Keras: {artifact.parity}")
    _require(artifact.parity.kernel_bits_equal, "kernel bits differ")
    _require(artifact.audit.silent_fallbacks == [], f"float fallbacks: {artifact.audit.silent_fallbacks}")


def settle(model: tf.keras.Model) -> None:
    """Gives batch normalizations random statistics, as if they were trained.

    Untrained ones leave sums of signs that are exactly zero, so that rounding decides on their sign.
    """
    generator = np.random.default_rng(0)
    for layer in structure.layers_of(model, structure.BatchNormalization):
        shape = layer.moving_mean.shape
        layer.beta.assign(generator.normal(size=shape, scale=0.3))
        layer.gamma.assign(generator.uniform(0.5, 1.5, size=shape))
        layer.moving_mean.assign(generator.normal(size=shape, scale=0.3))
        layer.moving_variance.assign(generator.uniform(0.5, 1.5, size=shape))


def settle_on(model: tf.keras.Model, images: np.ndarray) -> None:
    """Gives batch normalizations the statistics of one batch of images, as if they were trained on it.

    Means of a few integers would make some values before a sign exactly 0, which moving averages never do; each mean is
    therefore moved by about a twentieth of the deviation.
    """
    normalizations = structure.layers_of(model, structure.BatchNormalization)
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    model(images, training=True)
    generator = np.random.default_rng(0)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum
        deviation = np.sqrt(layer.moving_variance)
        layer.moving_mean.assign_add(_JITTER * deviation * generator.normal(size=deviation.shape))


def model_of(layer: tf.keras.layers.Layer) -> tf.keras.Model:
    """A model of a single layer, with float32 outputs."""
    inputs = tf.keras.Input(_SHAPE)
    outputs = tf.keras.layers.Activation("linear", dtype="float32")(layer(inputs))
    return tf.keras.Model(inputs, outputs)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _inputs(shape: tuple[int, ...], count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def _maker(quantizer: str | type | lq.quantizers.Quantizer | Make) -> Make:
    if isinstance(quantizer, lq.quantizers.Quantizer):
        return lambda: type(quantizer).from_config(quantizer.get_config())
    return quantizer if callable(quantizer) else quantizers.find(quantizer)


def _name(make: Make) -> str:
    return type(make()).__name__


def _method(method: str | methods.Method) -> methods.Method:
    return method.fresh() if isinstance(method, methods.Method) else methods.get(method)


def network(method: str | methods.Method) -> tf.keras.Model:
    """A network of a binary convolution and a binary dense layer."""
    method = _method(method)
    inputs = tf.keras.Input(_SHAPE)
    x = method.activation(method.convolution(inputs, 8, 3, name="conv"), name="act")
    x = method.dense(tf.keras.layers.Flatten()(x), 5, name="dense")
    return tf.keras.Model(inputs, tf.keras.layers.Activation("linear", dtype="float32")(x))


def _convolution(make: Make) -> BinaryConv2D:
    signs = make() if quantizers.kind_of(make()) == "activation" else "ste"
    return BinaryConv2D(8, 3, input_quantizer=signs, kernel_quantizer=make())


def _save(model: tf.keras.Model, path: Path) -> None:
    with warnings.catch_warnings():
        # Keras prefers its newer format to `.h5`.
        warnings.simplefilter("ignore", UserWarning)
        model.save(path)


def _check_levels(make: Make) -> None:
    """Activations must be elementwise and of the declared levels; kernels must have these levels up to a factor."""
    quantizer, levels = make(), quantizers.levels_of(make())
    _require(levels is None or len(levels) == 2, f"{_name(make)} declares levels {levels}: 1-bit values have two")
    kernel = quantizer(tf.constant(_EDGES["plain"])).numpy().reshape(-1, _EDGES["plain"].shape[-1])
    for k, column in enumerate(kernel.T):
        _require(len(np.unique(column)) <= 2, f"filter {k} has {len(np.unique(column))} values, not two")
        if levels is not None:
            lower, upper = min(column), max(column)
            is_scaled = np.isclose(lower * levels[1], upper * levels[0], 1e-5)
            _require(lower == upper or bool(is_scaled), f"filter {k} has values {lower}, {upper}, not {levels} scaled")
    if quantizers.kind_of(quantizer) == "activation" and levels is not None:
        x = tf.constant(_ACTIVATIONS)
        y = make()(x).numpy()
        _require(set(np.unique(y)) <= set(levels), f"{_name(make)} returns {np.unique(y)}, not {levels}")
        _require(np.array_equal(make()(x[::-1]).numpy(), y[::-1]), f"{_name(make)} does not work element by element")


def _check_finite(make: Make, what: str, x: np.ndarray) -> None:
    quantizer, inputs = make(), tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = quantizer(inputs)
    gradient = tape.gradient(y, inputs, tf.ones_like(y))
    _require(bool(np.isfinite(y).all()), f"{_name(make)} returns values that are not finite ({what})")
    _require(gradient is not None, f"{_name(make)} passes no gradient")
    _require(bool(np.isfinite(gradient).all()), f"the gradient of {_name(make)} is not finite ({what})")


_ACTIVATIONS = np.array(
    [0.0, -0.0, 1, -1, 0.5, -0.5, 2, -2, 1e-30, -1e-30, 100, -100, 1e30, -1e30, 3e38, -3e38], np.float32
)


def _edges() -> dict[str, np.ndarray]:
    """Kernels `(3, 3, 4, 5)`: random, with zero and constant filters, of one sign, huge, and tiny."""
    plain = np.random.default_rng(0).normal(0, 0.6, (3, 3, 4, 5)).astype(np.float32)
    equal = plain.copy()
    equal[..., 0], equal[..., 1], equal[..., 2] = 0.25, 0.0, -1.0
    return {
        "plain": plain,
        "equal filters": equal,
        "positive": np.abs(plain) + np.float32(0.1),
        "huge": plain * np.float32(1e30),
        "tiny": plain * np.float32(1e-20),
    }


_EDGES = _edges()


def normal_images(model: tf.keras.Model, count: int = 4) -> np.ndarray:
    """Standard normal inputs for a model, the same on every call."""
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype(np.float32)
