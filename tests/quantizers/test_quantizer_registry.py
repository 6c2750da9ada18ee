"""The registry of quantizers: names, aliases, declared levels, and registration by users."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn import layers, quantizers
from kbnn.errors import UsageError
from kbnn.quantizers import registry


@pytest.fixture(autouse=True)
def restored_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the registry after each test."""
    for name in ("_values", "_aliases", "_sources"):
        monkeypatch.setattr(registry._QUANTIZERS, name, dict(getattr(registry._QUANTIZERS, name)))


@pytest.mark.parametrize("name", quantizers.names("activation"))
def test_every_activation_quantizer_is_a_sign(name):
    assert quantizers.get(name)(tf.constant([-2.0, -0.0, 0.0, 0.3])).numpy().tolist() == [-1, 1, 1, 1]
    assert quantizers.binarizer(quantizers.get(name)) is not None


@pytest.mark.core("dorefa", "magnitude_aware", "ste", "xnor")
@pytest.mark.parametrize("name", quantizers.names("kernel"))
def test_every_kernel_has_two_levels_per_filter(name):
    kernel = quantizers.get(name)(tf.random.stateless_normal([3, 3, 4, 2], [1, 2])).numpy()
    assert all(len(np.unique(kernel[..., k])) == 2 for k in range(2))
    if name == "equalized":
        assert quantizers.levels_of(quantizers.get(name)) is None
        return
    assert all(len(np.unique(np.abs(kernel[..., k]))) == 1 for k in range(2))
    assert quantizers.levels_of(quantizers.get(name)) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("alias", "kind"),
    [
        ("ste_sign", quantizers.SteSign),
        ("sign", quantizers.SteSign),
        ("approx_sign", quantizers.ApproxSign),
        ("magnitude_aware_sign", quantizers.MagnitudeAwareSign),
        ("MagnitudeAwareSign", quantizers.MagnitudeAwareSign),
        ("swish_sign", quantizers.SignSwish),
        ("HalfHalf", quantizers.HalfHalf),
    ],
)
def test_aliases(alias, kind):
    layer = layers.BinaryConv2D(8, 3, kernel_quantizer=alias)
    assert type(layer.kernel_quantizer) is kind


def test_layers_take_the_names_of_recipes():
    layer = layers.BinaryConv2D(8, 3, input_quantizer="ede", kernel_quantizer="sign_swish_10")
    assert isinstance(layer.input_quantizer, quantizers.EDESign)
    assert layer.kernel_quantizer.beta == 10.0


def test_layers_take_classes_and_larqs_other_quantizers():
    layer = layers.BinaryConv2D(8, 3, input_quantizer=quantizers.EDESign, kernel_quantizer="ste_tern")
    assert isinstance(layer.input_quantizer, quantizers.EDESign)
    assert set(np.unique(layer.kernel_quantizer(tf.constant([-1.0, 0.0, 1.0])))) == {-1.0, 0.0, 1.0}


def test_registering_takes_one_class():
    @quantizers.register("mine", kind="activation", levels=(-1.0, 1.0), aliases=("my_sign",))
    class Mine(quantizers.Estimator):
        @staticmethod
        def surrogate(x, dy):
            return 3 * dy

    assert (Mine.kind, Mine.levels) == ("activation", (-1.0, 1.0))
    assert "mine" in quantizers.names("activation")
    layer = layers.BinaryConv2D(8, 3, input_quantizer="mine", kernel_quantizer="my_sign")
    again = layers.BinaryConv2D.from_config(layer.get_config())
    assert type(again.input_quantizer) is type(again.kernel_quantizer) is Mine


def test_the_kind_is_that_of_the_base_class_unless_given():
    @quantizers.register("mine")
    class Mine(quantizers.KernelQuantizer):
        def call(self, inputs):
            return tf.sign(inputs)

    assert quantizers.find("mine").kind == Mine.kind == "kernel"
    assert "mine" not in quantizers.names("activation")
    with pytest.raises(UsageError, match="binarizes kernels"):
        layers.BinaryConv2D(8, 3, input_quantizer="mine")


def test_registering_again_replaces():
    def define(factor):
        @quantizers.register("mine")
        class Mine(quantizers.Estimator):
            @staticmethod
            def surrogate(x, dy):
                return factor * dy

        return Mine

    define(1.0)
    second = define(2.0)
    assert type(quantizers.get("mine")) is second
    config = tf.keras.utils.serialize_keras_object(quantizers.get("mine"))
    assert type(tf.keras.utils.deserialize_keras_object(config)) is second


class Surrogate(quantizers.Estimator):
    """Defines only `surrogate`, as the docstring of `Estimator` says."""

    @staticmethod
    def surrogate(x, dy):
        return dy * tf.maximum(1 - tf.abs(x) ** 3, 0)


class WithSelf(quantizers.Estimator):
    """The same, with `self`."""

    def surrogate(self, x, dy):
        return dy * tf.maximum(1 - tf.abs(x) ** 3, 0)


@pytest.mark.parametrize("kind", [Surrogate, WithSelf])
@pytest.mark.parametrize("compiled", [True, False])
def test_an_estimator_that_defines_only_its_surrogate_binarizes(kind, compiled):
    x = tf.constant([-2.0, -0.5, -0.0, 0.5, 2.0])
    quantizer = kind()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.function(quantizer)(x) if compiled else quantizer(x)
    np.testing.assert_array_equal(y, [-1, -1, 1, 1, 1])
    np.testing.assert_allclose(tape.gradient(y, x), [0, 0.875, 1, 0.875, 0])


@pytest.mark.parametrize("kind", [Surrogate, WithSelf])
def test_an_estimator_that_defines_only_its_surrogate_trains_in_a_fused_step(kind):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2, 6, 6, 4)), tf.float32)
    layer = layers.BinaryConv2D(8, 3, input_quantizer=kind(), kernel_quantizer="ste")
    layer.build(x.shape)
    assert quantizers.binarizer(layer.input_quantizer) is not None
    gradients = []
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        gradients.append((y, *tape.gradient(y, [x, layer.latent_kernel])))
    for fused, plain in zip(*gradients, strict=True):
        np.testing.assert_allclose(fused, plain, 1e-5, 1e-5)


class Levels(quantizers.Estimator):
    """Overrides `call` with other levels and declares nothing."""

    @staticmethod
    def surrogate(x, dy):
        return dy

    def call(self, inputs):
        return tf.where(inputs >= 0, 2 * tf.ones_like(inputs), tf.zeros_like(inputs))


class Threshold(quantizers.SteSign):
    """Overrides the `call` of a class whose function is known."""

    def call(self, inputs):
        return super().call(inputs - 0.5)


class Uneven(Surrogate):
    """Declares other levels than ±1."""

    levels = (-1.0, 2.0)


@pytest.mark.parametrize("kind", [Levels, Threshold, Uneven])
def test_training_equals_inference_for_quantizers_that_are_not_the_sign(kind):
    assert quantizers.binarizer(kind()) is None
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    layer = layers.BinaryConv2D(8, 3, input_quantizer=kind(), kernel_quantizer="ste")
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))


def test_levels_of_quantizers_and_their_subclasses():
    assert quantizers.levels_of(Surrogate()) == (-1.0, 1.0)
    assert quantizers.levels_of(Uneven()) == (-1.0, 2.0)
    assert quantizers.levels_of(Levels()) is None
    assert quantizers.levels_of(Threshold()) is None
    assert quantizers.levels_of(tf.sign) is None
    np.testing.assert_array_equal(Uneven()(tf.constant([-3.0, 0.0])), [-1.0, 2.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quantizers.register("x", kind="weights"), "unknown kind of quantizer 'x': received 'weights'"),
        (lambda: quantizers.register("x", levels=(1.0, -1.0)), "levels of quantizer 'x' must be in ascending order"),
        (lambda: quantizers.register("x")(tf.keras.layers.ReLU), "cannot register ReLU as quantizer 'x': derive it"),
        (
            lambda: quantizers.register("ste")(Surrogate),
            "cannot register quantizer 'ste': the name is taken by larq.quantizers.SteSign",
        ),
        (lambda: quantizers.register("")(Surrogate), "without a name"),
        (lambda: quantizers.get("edd"), "unknown quantizer: received 'edd'; did you mean ede"),
        (lambda: quantizers.get("kernel"), "unknown quantizer: received 'kernel'"),
        (lambda: quantizers.find("xnor", "activation"), "'xnor' binarizes kernels"),
        (lambda: layers.BinaryConv2D(8, 3, input_quantizer="xnor"), "received input_quantizer=XNORSign, which"),
        (
            lambda: quantizers.find("xno", "activation"),
            "unknown quantizer: received 'xno'; choose one of adaptive, approx_sign",
        ),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make()
