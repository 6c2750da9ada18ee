"""The fused convolution of the training step against the plain call: values, gradients, and unsupported cases."""

import contextlib
from collections.abc import Iterator

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from kbnn import compiled, models, quantizers
from kbnn.layers import BinaryConv2D, fused, grouped_convolution

RTOL = 2e-5

QUANTIZERS = {
    "approx_sign": quantizers.ApproxSign,
    "ste": quantizers.SteSign,
    "ste without a window": lambda: quantizers.SteSign(clip_value=None),
    "leaky_ste": quantizers.LeakySteSign,
    "tanh": quantizers.TanhSign,
    "ede": lambda: quantizers.EDESign(t=0.7, k=1.4),
    "sign_swish": lambda: quantizers.SignSwish(5.0),
    "trainable sign_swish": lambda: quantizers.SignSwish(3.0, trainable_beta=True),
}

GEOMETRIES = {
    "3x3": ((2, 8, 8, 6), {"kernel_size": 3}),
    "5x5, odd sizes": ((2, 7, 9, 4), {"kernel_size": 5}),
    "1x1": ((2, 5, 5, 4), {"kernel_size": 1}),
    "1x1, stride 2": ((2, 6, 7, 4), {"kernel_size": 1, "strides": 2}),
    "stride 2, even": ((2, 8, 8, 4), {"kernel_size": 3, "strides": 2}),
    "stride 2, odd": ((2, 7, 9, 4), {"kernel_size": 3, "strides": 2}),
    "stride 3": ((2, 10, 8, 4), {"kernel_size": 3, "strides": 3}),
    "valid": ((2, 8, 7, 4), {"kernel_size": 3, "padding": "valid"}),
    "valid, stride 2": ((2, 9, 8, 4), {"kernel_size": 5, "strides": 2, "padding": "valid"}),
    "wide kernel": ((2, 6, 8, 4), {"kernel_size": (1, 3)}),
    "groups": ((2, 6, 6, 8), {"kernel_size": 3, "groups": 2}),
    "four groups, stride 2": ((2, 8, 8, 8), {"kernel_size": 3, "strides": 2, "groups": 4}),
    "batch of one": ((1, 6, 6, 4), {"kernel_size": 3}),
    "one pixel": ((2, 1, 1, 4), {"kernel_size": 3}),
    "small map of many channels": ((2, 4, 4, 128), {"kernel_size": 3, "filters": 128}),
    "small map of many channels in groups": ((2, 4, 4, 256), {"kernel_size": 3, "filters": 256, "groups": 2}),
    "with bias and activation": ((2, 6, 6, 4), {"kernel_size": 3, "use_bias": True, "activation": "relu"}),
}


def binary_layer(shape: tuple[int, ...], **arguments: object) -> BinaryConv2D:
    defaults = {"filters": 8, "kernel_size": 3, "input_quantizer": "approx_sign", "kernel_quantizer": "ste_sign"}
    layer = BinaryConv2D(**{**defaults, **arguments})
    layer.build(shape)
    return layer


def activations(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Normal values, with some zeros and some values at the edges of the estimators."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, shape).astype(np.float32)
    edges = np.float32([0.0, -0.0, 1.0, -1.0])
    return np.where(rng.random(shape) < 0.1, rng.choice(edges, shape), x)


def step(layer: BinaryConv2D, x: object, training: bool) -> dict[str, np.ndarray]:
    """The output, and the gradients of a weighted sum of it, by name."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training)
        weights = np.random.default_rng(1).normal(0, 1, y.shape).astype(np.float32)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * weights)
    sources = {"x": x, **{variable.name: variable for variable in layer.trainable_variables}}
    gradients = tape.gradient(loss, sources)
    return {"y": y, **gradients}


def assert_equal(actual: dict, expected: dict, rtol: float = RTOL) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        reference = np.asarray(tf.cast(value, tf.float32))
        received = np.asarray(tf.cast(actual[name], tf.float32))
        scale = float(np.abs(reference).max())
        np.testing.assert_allclose(received, reference, rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.fixture(params=[pytest.param("xla", marks=pytest.mark.xla), "without xla"])
def xla(request: pytest.FixtureRequest) -> None:
    """Runs a test compiled, and uncompiled."""
    assert compiled.available() is (request.param == "xla")


@contextlib.contextmanager
def counted_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The input quantizers of the layers that take the fused form."""
    calls: list[str] = []
    original = fused.convolution

    def convolution(x, kernel, quantizer, *arguments):
        calls.append(type(quantizer).__name__)
        return original(x, kernel, quantizer, *arguments)

    monkeypatch.setattr(fused, "convolution", convolution)
    yield calls


@pytest.mark.usefixtures("xla")
@pytest.mark.parametrize("name", QUANTIZERS)
def test_equals_the_plain_call_for_every_estimator(name):
    shape = (2, 7, 8, 4)
    layer = binary_layer(shape, input_quantizer=QUANTIZERS[name]())
    fast, plain = (step(layer, activations(shape), training) for training in (True, False))
    assert_equal(fast, plain)
    np.testing.assert_array_equal(fast["y"], plain["y"])
    np.testing.assert_array_equal(np.sign(fast["x"]), np.sign(plain["x"]))


@pytest.mark.xla
@pytest.mark.core("3x3", "groups")
@pytest.mark.parametrize("name", GEOMETRIES)
def test_equals_the_plain_call_for_every_geometry(name, monkeypatch):
    shape, arguments = GEOMETRIES[name]
    layer = binary_layer(shape, **arguments)
    with counted_calls(monkeypatch) as calls:
        fast, plain = (step(layer, activations(shape), training) for training in (True, False))
    assert calls == ["ApproxSign"]
    assert_equal(fast, plain)
    np.testing.assert_array_equal(fast["y"], plain["y"])


@pytest.mark.xla
@pytest.mark.core("xnor")
@pytest.mark.parametrize(
    ("quantizer", "arguments"),
    [
        (quantizers.MagnitudeAwareSign, {}),
        (quantizers.XNORSign, {}),
        (quantizers.LibraSign, {}),
        (quantizers.HalfHalf, {"scale": "learned"}),
        (quantizers.StandardizedSign, {"scale": "mean_abs"}),
        (lambda: quantizers.SignSwish(trainable_beta=True), {"scale": "learned", "scale_initializer": "median"}),
        (lambda: None, {}),
    ],
    ids=["magnitude_aware", "xnor", "libra", "half_half", "standardized", "sign_swish", "real kernel"],
)
def test_equals_the_plain_call_for_kernel_quantizers_and_scales(quantizer, arguments):
    shape = (2, 6, 6, 4)
    layer = binary_layer(shape, kernel_quantizer=quantizer(), **arguments)
    assert_equal(step(layer, activations(shape), True), step(layer, activations(shape), False))


@pytest.mark.xla
@pytest.mark.parametrize("scale", [None, "learned", "mean_abs"])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_rounds_the_float32_step(policy, scale):
    shape, dtype = (2, 8, 8, 8), policy.removeprefix("mixed_")
    x = tf.cast(activations(shape), dtype)
    exact = binary_layer(shape, scale=scale)
    layer = binary_layer(shape, scale=scale, dtype=policy)
    layer.set_weights(exact.get_weights())
    half = step(layer, x, True)
    full = step(exact, tf.cast(x, tf.float32), False)
    assert half["y"].dtype == half["x"].dtype == dtype
    names = dict(zip(full, half, strict=True))
    # Two roundings to 8 significant bits each.
    assert_equal({name: half[names[name]] for name in full}, full, rtol=2**-7)
    if scale is None:
        np.testing.assert_array_equal(tf.cast(half["y"], tf.float32), full["y"])


def test_half_precision_sums_are_exact_multiples_of_the_scale():
    shape = (2, 6, 6, 64)
    layer = binary_layer(shape, scale="learned", scale_initializer=0.1, dtype="mixed_bfloat16")
    sums = binary_layer(shape)
    sums.set_weights(layer.get_weights()[:1])
    x = activations(shape)
    rounded = float(tf.cast(0.1, tf.bfloat16))
    expected = tf.cast(sums(x, training=False) * rounded, tf.bfloat16)
    np.testing.assert_array_equal(layer(x, training=True), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_groups_are_split_where_tensorflow_has_no_grouped_gradient(dtype, monkeypatch):
    shape = (2, 6, 6, 8)
    layer = binary_layer(shape, groups=2, dtype="mixed_float16" if dtype == "float16" else None)
    x = tf.cast(tf.cast(activations(shape), tf.float16), tf.float32)
    reference = binary_layer(shape, groups=2)
    reference.set_weights(layer.get_weights())
    expected = step(reference, x, False)
    monkeypatch.setattr(grouped_convolution, "has_gradients", lambda dtype: False)
    received = step(layer, x, True)
    assert_equal(dict(zip(expected, received.values(), strict=True)), expected, RTOL if dtype == "float32" else 2e-3)


def test_support_for_grouped_gradients_is_detected_by_trying():
    found = grouped_convolution.has_gradients(tf.float32)
    x, kernel = tf.ones([1, 2, 2, 4]), tf.Variable(tf.ones([1, 1, 2, 4]))

    @tf.function
    def gradient():
        return tf.gradients(tf.nn.conv2d(x, kernel, 1, "VALID"), kernel.value())

    with contextlib.nullcontext() if found else pytest.raises(tf.errors.OpError):
        gradient()


@pytest.mark.slow
@pytest.mark.usefixtures("xla")
def test_is_the_same_in_a_function_of_unknown_batch_size():
    shape = (3, 7, 8, 4)
    layer = binary_layer(shape, strides=2)
    signature = [tf.TensorSpec([None, *shape[1:]], tf.float32)]
    variables = layer.trainable_variables

    @tf.function(input_signature=signature)
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.square(y))
        assert y.shape == (None, 4, 4, 8)
        return y, tape.gradient(loss, [x, *variables])

    x = tf.convert_to_tensor(activations(shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=False)
        loss = tf.reduce_sum(tf.square(y))
    received, (dx, dw) = gradients(x)
    expected_dx, expected_dw = tape.gradient(loss, [x, *variables])
    assert_equal({"y": received, "x": dx, "w": dw}, {"y": y, "x": expected_dx, "w": expected_dw})


def operations(layer: BinaryConv2D, **arguments: object) -> list[str]:
    """The types of the operations in a call of the layer, including those inside functions."""
    traced = tf.function(lambda x: layer(x, **arguments)).get_concrete_function(tf.TensorSpec((1, 8, 8, 4)))
    definition = traced.graph.as_graph_def()
    functions = [node for function in definition.library.function for node in function.node_def]
    return [node.op for node in [*definition.node, *functions]]


@pytest.mark.parametrize("arguments", [{}, {"training": False}, {"training": None}])
def test_inference_keeps_the_form_that_the_converter_knows(arguments):
    types = operations(binary_layer((1, 8, 8, 4)), **arguments)
    assert "PadV2" in types
    assert "ConcatV2" not in types
    assert "PartitionedCall" not in types


def test_training_pads_by_concatenation():
    types = operations(binary_layer((1, 8, 8, 4)), training=True)
    assert "ConcatV2" in types
    assert "PadV2" not in types


class Doubled(lq.quantizers.SteSign):
    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((2, 6, 6, 4), {"input_quantizer": lq.quantizers.ste_heaviside}),
        ((2, 6, 6, 4), {"input_quantizer": lq.quantizers.DoReFa(2)}),
        ((2, 6, 6, 4), {"input_quantizer": Doubled()}),
        ((2, 6, 6, 4), {"input_quantizer": None}),
        ((2, 6, 6, 4), {"input_quantizer": lq.quantizers.SteSign(metrics=["flip_ratio"])}),
        ((2, 6, 6, 4), {"pad_values": 0.0}),
        ((2, 6, 6, 4), {"pad_values": -1.0}),
        ((2, 6, 6, 4), {"dilation_rate": 2}),
        ((2, 6, 6, 4), {"dtype": "float64"}),
    ],
    ids=["function", "two bits", "subclass", "real input", "observed", "zeros", "minus ones", "dilated", "float64"],
)
def test_unknown_cases_take_the_plain_call(shape, arguments, monkeypatch):
    layer = binary_layer(shape, **arguments)
    x = tf.cast(activations(shape), layer.compute_dtype)
    with counted_calls(monkeypatch) as calls:
        trained = layer(x, training=True)
    assert not calls
    np.testing.assert_array_equal(trained, layer(x, training=False))


def test_unknown_height_and_width_take_the_plain_call(monkeypatch):
    layer = binary_layer((2, 6, 6, 4))
    trained = tf.function(
        lambda x: layer(x, training=True), input_signature=[tf.TensorSpec([None, None, None, 4], tf.float32)]
    )
    x = activations((2, 6, 6, 4))
    with counted_calls(monkeypatch) as calls:
        y = trained(x)
    assert not calls
    np.testing.assert_array_equal(y, layer(x, training=True))


def test_the_environment_turns_xla_off(monkeypatch):
    monkeypatch.setenv(compiled.VARIABLE, "0")
    assert not compiled.available.__wrapped__()


class Subclassed(tf.keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.stem = tf.keras.layers.Conv2D(4, 3, padding="same")
        self.binary = BinaryConv2D(8, 3, strides=2, **_bnnplus())
        self.normalization = tf.keras.layers.BatchNormalization()
        self.classifier = tf.keras.layers.Dense(3, dtype="float32")

    def call(self, inputs, training=None):
        x = self.normalization(self.binary(self.stem(inputs)), training=training)
        return self.classifier(tf.reduce_mean(x, [1, 2]))


def _bnnplus() -> dict[str, object]:
    return {
        "input_quantizer": quantizers.SignSwish(3.0, trainable_beta=True),
        "kernel_quantizer": quantizers.SignSwish(3.0, trainable_beta=True),
        "scale": "learned",
    }


@pytest.mark.xla
@pytest.mark.slow
def test_trains_a_subclassed_model_like_the_plain_call(monkeypatch):
    def losses() -> list[float]:
        tf.keras.utils.set_random_seed(0)
        model = Subclassed()
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(tf.keras.optimizers.legacy.SGD(0.1), loss)
        x, y = activations((12, 8, 8, 3)), np.arange(12) % 3
        return model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"]

    with counted_calls(monkeypatch) as calls:
        fast = losses()
    assert calls
    monkeypatch.setattr(fused, "takes", lambda *_: False)
    np.testing.assert_allclose(fast, losses(), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adabin", "bireal", "bnnplus_r1", "irnet+bma", "siman", "react+ml", "xnor+std"])
def test_all_gradients_of_a_network_equal_the_plain_ones(method, monkeypatch):
    model = models.build("tiny", method=method)
    x = activations((8, 8, 8, 1))

    def gradients() -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf.square(logits - 1)) + sum(model.losses)
        return tape.gradient(loss, {variable.name: variable for variable in model.trainable_variables})

    with counted_calls(monkeypatch) as calls:
        fast = gradients()
    assert len(calls) == 4
    monkeypatch.setattr(fused, "takes", lambda *_: False)
    plain = gradients()
    # Where batch normalization cancels a gradient, such as that of a scale in front of it, only rounding remains.
    largest = max(float(tf.reduce_max(tf.abs(gradient))) for gradient in plain.values())
    for name, expected in plain.items():
        np.testing.assert_allclose(fast[name], expected, rtol=1e-3, atol=1e-5 * largest, err_msg=name)


@pytest.mark.slow
def test_a_loaded_model_can_be_trained_further(tmp_path):
    inputs = tf.keras.Input((8, 8, 4))
    y = BinaryConv2D(8, 3, **_bnnplus())(inputs)
    model = tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(y))
    model.save(tmp_path / "model", save_format="tf")
    loaded = tf.saved_model.load(tmp_path / "model")
    x = tf.convert_to_tensor(activations((2, 8, 8, 4)))

    def gradients(network, variables):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = network(x, training=True)
            loss = tf.reduce_sum(tf.square(y))
        return {"y": y, **{str(i): g for i, g in enumerate(tape.gradient(loss, [x, *variables]))}}

    by_name = {variable.name: variable for variable in loaded.trainable_variables}
    variables = [by_name[variable.name] for variable in model.trainable_variables]
    assert_equal(gradients(loaded, variables), gradients(model, model.trainable_variables))
