"""The 1-bit convolution: padding with ones, groups, scales, gradients, precision, errors."""

import math

import larq as lq
import numpy as np
import pytest
import reference
import tensorflow as tf
from gradients import output_and_gradients

from kbnn import quantizers, regularizers
from kbnn.errors import UsageError
from kbnn.layers import BinaryConv2D, BinaryDense

X = np.random.default_rng(0).normal(size=(2, 7, 6, 8)).astype(np.float32)


def convolved(x, kernel, strides=1, padding="same", groups=1, pad=1.0):
    """A convolution by its definition, padded with the value `pad` where TensorFlow pads with zeros."""
    kh, kw, per_group, filters = kernel.shape
    if padding == "same":
        sizes = [(-(-n // strides) - 1) * strides + k - n for n, k in zip(x.shape[1:3], (kh, kw), strict=True)]
        ends = [(max(s, 0) // 2, max(s, 0) - max(s, 0) // 2) for s in sizes]
        x = np.pad(x, [(0, 0), *ends, (0, 0)], constant_values=pad)
    height, width = ((n - k) // strides + 1 for n, k in zip(x.shape[1:3], (kh, kw), strict=True))
    y = np.zeros((len(x), height, width, filters))
    for i in range(height):
        for j in range(width):
            window = x[:, i * strides : i * strides + kh, j * strides : j * strides + kw]
            for o in range(filters):
                g = o // (filters // groups)
                part = window[..., g * per_group : (g + 1) * per_group]
                y[:, i, j, o] = (part * kernel[..., o]).sum((1, 2, 3))
    return y


@pytest.mark.parametrize("kernel_size", [1, 2, 3, (3, 2), 5])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_forward(kernel_size, strides, padding):
    layer = BinaryConv2D(
        4, kernel_size, strides, padding, input_quantizer="ste_sign", kernel_quantizer=quantizers.XNORSign()
    )
    y = layer(X)
    kernel = layer.latent_kernel.numpy().astype(np.float64)
    binary = reference.mean_magnitude(kernel) * reference.sign(kernel)
    np.testing.assert_allclose(y, convolved(reference.sign(X), binary, strides, padding), 1e-5, 1e-5)
    assert tuple(layer.compute_output_shape(X.shape)) == y.shape


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("strides", [1, 2])
def test_groups(groups, strides):
    layer = BinaryConv2D(
        16, 3, strides, groups=groups, input_quantizer="approx_sign", kernel_quantizer=quantizers.MagnitudeAwareSign()
    )
    dy = np.random.default_rng(1).normal(size=layer(X).shape).astype(np.float32)
    y, dx, others = output_and_gradients(layer, X, dy)
    kernel = layer.latent_kernel.numpy()
    np.testing.assert_allclose(
        y, convolved(reference.sign(X), layer.binarized_kernel().numpy(), strides, "same", groups), 1e-5, 1e-5
    )

    # Equal to separate convolutions, concatenated.
    single = []
    for part, weights in zip(np.split(X, groups, -1), np.split(kernel, groups, -1), strict=True):
        alone = BinaryConv2D(
            16 // groups,
            3,
            strides,
            input_quantizer="approx_sign",
            kernel_quantizer=quantizers.MagnitudeAwareSign(),
            weights=[weights],
        )
        single.append(output_and_gradients(alone, part, np.split(dy, groups, -1)[len(single)]))
    np.testing.assert_allclose(dx, np.concatenate([each[1] for each in single], -1), 1e-4, 1e-5)
    np.testing.assert_allclose(others["kernel"], np.concatenate([each[2]["kernel"] for each in single], -1), 1e-4, 1e-5)


def test_is_larqs_layer_and_equals_it():
    ours = BinaryConv2D(4, 3, 2, input_quantizer="approx_sign", kernel_quantizer="ste_sign")
    assert isinstance(ours, lq.layers.QuantConv2D)
    dy = np.random.default_rng(1).normal(size=ours(X).shape)
    larqs = lq.layers.QuantConv2D(
        4,
        3,
        2,
        "same",
        pad_values=1.0,
        input_quantizer="approx_sign",
        kernel_quantizer="ste_sign",
        kernel_constraint="weight_clip",
        use_bias=False,
        weights=[ours.latent_kernel.numpy()],
    )
    for a, b in zip(output_and_gradients(ours, X, dy), output_and_gradients(larqs, X, dy), strict=True):
        tf.nest.map_structure(lambda u, v: np.testing.assert_allclose(u, v, 1e-5, 1e-5), a, b)


@pytest.mark.parametrize(("initializer", "statistic"), [("mean", np.mean), ("median", np.median)])
@pytest.mark.parametrize("size", [3, 2])
def test_learned_scale_starts_at_the_kernels_magnitude(initializer, statistic, size):
    layer = BinaryConv2D(4, size, kernel_quantizer="ste_sign", scale="learned", scale_initializer=initializer)
    layer.build(X.shape)
    np.testing.assert_allclose(layer.alpha, statistic(np.abs(layer.latent_kernel.numpy()), axis=(0, 1, 2)), 1e-6)
    assert layer.alpha.trainable


def test_learned_scale_of_a_dead_filter_is_positive():
    layer = BinaryConv2D(4, 3, kernel_quantizer="ste_sign", scale="learned", kernel_initializer="zeros")
    layer.build(X.shape)
    assert (layer.alpha.numpy() > 0).all()


def test_learned_scale_and_its_gradient():
    layer = BinaryConv2D(4, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", scale="learned")
    dy = np.random.default_rng(1).normal(size=layer(X).shape).astype(np.float32)
    layer.alpha.assign([0.5, 1, 2, 3])
    y, _, others = output_and_gradients(layer, X, dy)
    unscaled = convolved(reference.sign(X), reference.sign(layer.latent_kernel.numpy()))
    np.testing.assert_allclose(y, unscaled * [0.5, 1, 2, 3], 1e-5)
    np.testing.assert_allclose(others["alpha"], (dy * unscaled).sum((0, 1, 2)), reference.RTOL, 1e-4)


def test_mean_abs_scale_is_a_constant_for_the_gradient():
    scaled = BinaryConv2D(4, 3, input_quantizer="approx_sign", kernel_quantizer="ste_sign", scale="mean_abs")
    dy = np.random.default_rng(1).normal(size=scaled(X).shape).astype(np.float32)
    in_kernel = BinaryConv2D(
        4,
        3,
        input_quantizer="approx_sign",
        kernel_quantizer=quantizers.MagnitudeAwareSign(),
        weights=[scaled.latent_kernel.numpy()],
    )
    for a, b in zip(output_and_gradients(scaled, X, dy), output_and_gradients(in_kernel, X, dy), strict=True):
        tf.nest.map_structure(lambda u, v: np.testing.assert_allclose(u, v, 1e-4, 1e-5), a, b)


@pytest.mark.slow
def test_alpha_and_beta_move_under_training_and_stay_positive():
    swish = quantizers.SignSwish(5.0, trainable_beta=True)
    kernel_swish = quantizers.SignSwish(5.0, trainable_beta=True)
    layer = BinaryConv2D(
        4,
        3,
        input_quantizer=swish,
        kernel_quantizer=kernel_swish,
        scale="learned",
        scale_regularizer=regularizers.Manhattan(1e-2),
    )
    model = tf.keras.Sequential([layer, tf.keras.layers.GlobalAveragePooling2D()])
    model.compile(tf.keras.optimizers.SGD(0.5), "mse")
    model(X)
    before = [weight.numpy() for weight in (layer.alpha, swish.beta, kernel_swish.beta)]
    model.fit(X, np.ones((2, 4)), epochs=3, verbose=0)
    after = [weight.numpy() for weight in (layer.alpha, swish.beta, kernel_swish.beta)]
    assert all((a != b).all() for a, b in zip(before, after, strict=True))
    assert all((value > 0).all() for value in after)
    assert {weight.name.rpartition("/")[2] for weight in layer.trainable_weights} == {"kernel:0", "alpha:0", "beta:0"}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_latent_kernel_is_binarized_in_float32(policy):
    """A weight that the compute dtype rounds to zero keeps its sign."""
    kernel = np.full((1, 1, 8, 4), -1e-12, np.float32)
    layer = BinaryConv2D(
        4,
        1,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        dtype=tf.keras.mixed_precision.Policy(policy),
        weights=[kernel],
    )
    y = layer(X)
    assert y.dtype == layer.compute_dtype
    assert layer.latent_kernel.dtype == tf.float32
    np.testing.assert_array_equal(tf.cast(y, tf.float32), -reference.sign(X).sum(-1, keepdims=True).repeat(4, -1))


def test_bias_and_activation():
    layer = BinaryConv2D(
        4, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=True, activation="relu"
    )
    layer.build(X.shape)
    layer.bias.assign([1, 2, 3, 4])
    unscaled = convolved(reference.sign(X), reference.sign(layer.latent_kernel.numpy()))
    np.testing.assert_allclose(layer(X), np.maximum(unscaled + np.arange(1, 5), 0))


@pytest.mark.slow
def test_unknown_height_and_width():
    layer = BinaryConv2D(4, 3, 2, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
    model = tf.keras.Sequential([tf.keras.Input((None, None, 8)), layer])
    unscaled = convolved(reference.sign(X), reference.sign(layer.latent_kernel.numpy()), 2)
    np.testing.assert_allclose(model(X), unscaled)


def test_dense_equals_a_product():
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    layer = BinaryDense(
        3, input_quantizer="approx_sign", kernel_quantizer=quantizers.XNORSign(), use_bias=True, activation="relu"
    )
    layer.build(x.shape)
    layer.bias.assign([0.1, 0.2, 0.3])
    kernel = layer.latent_kernel.numpy().astype(np.float64)
    binary = reference.mean_magnitude(kernel) * reference.sign(kernel)
    y, dx, others = output_and_gradients(layer, x, np.ones((5, 3), np.float32))
    products = reference.sign(x) @ binary + layer.bias.numpy()
    np.testing.assert_allclose(y, np.maximum(products, 0), 1e-5, 1e-6)
    dy = (products > 0).astype(float)
    np.testing.assert_allclose(dx, dy @ binary.T * reference.approx_sign(x), 1e-4, 1e-5)
    d_binary = reference.sign(x).T @ dy
    expected = d_binary * (1 / 8 + reference.mean_magnitude(kernel) * reference.ste(kernel))
    np.testing.assert_allclose(others["kernel"], expected, 1e-4, 1e-5)


def test_larqs_summary_counts_one_bit_kernels():
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 32)), BinaryConv2D(32, 3, kernel_quantizer="ste_sign")])
    assert model.layers[0].kernel.precision == 1
    lq.models.summary(model, print_fn=lambda text: None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryConv2D(5, 3, groups=2), "5 filters cannot be split into groups=2"),
        (lambda: BinaryConv2D(6, 3, groups=3, name="c")(X), "c: 8 input channels cannot be split into groups=3"),
        (lambda: BinaryConv2D(4, 3, groups=0), "groups=0"),
        (lambda: BinaryConv2D(4, 3, scale="learnt"), "unknown scale.*did you mean learned"),
        (lambda: BinaryConv2D(4, 3, scale="learned", scale_initializer="medan"), "did you mean median"),
        (
            lambda: BinaryConv2D(4, 3, scale="learned", scale_initializer=0.0),
            "must be positive and finite, received 0.0",
        ),
        (lambda: BinaryConv2D(4, 3, scale="learned", scale_initializer=math.nan), "and finite, received nan"),
        (lambda: BinaryConv2D(4, 3, scale_regularizer=regularizers.Manhattan()), "needs scale='learned'"),
        (lambda: BinaryConv2D(4, 3, scale="learned", scale_regularizer="l2"), "scale_regularizer is .* received L2"),
        (lambda: BinaryConv2D(4, 3, kernel_regularizer=regularizers.Euclidean()), r"of \(W, α\) as scale_regularizer"),
        (lambda: BinaryDense(4, kernel_regularizer=regularizers.Manhattan()), r"of \(W, α\) as scale_regularizer"),
        (lambda: BinaryConv2D(4, 3, input_quantizer=quantizers.HalfHalf()), "pass it as kernel_quantizer"),
        (lambda: BinaryConv2D(4, 3, data_format="channels_first"), "received data_format='channels_first'"),
        (lambda: BinaryConv2D(4, 3)(X[None]), r"takes \(batch, height, width, channels\)"),
        (lambda: BinaryDense(4)(X), r"takes \(batch, channels\).*flatten"),
        (lambda: BinaryDense(4, input_quantizer=quantizers.XNORSign()), "pass it as kernel_quantizer"),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("argument", ["input_quantizer", "kernel_quantizer"])
def test_similar_names_are_suggested_for_an_unknown_quantizer(argument):
    expected = f"unknown {argument} of conv: received 'aprox_sign'; did you mean approx_sign"
    with pytest.raises(UsageError, match=expected):
        BinaryConv2D(8, 3, name="conv", **{argument: "aprox_sign"})


def test_inputs_of_another_rank_are_refused():
    with pytest.raises(UsageError, match=r"conv takes \(batch, height, width, channels\): received"):
        BinaryConv2D(8, 3, name="conv")(tf.zeros((2, 8)))
    with pytest.raises(UsageError, match=r"dense takes \(batch, channels\): received"):
        BinaryDense(8, name="dense")(tf.zeros((8,)))


def test_one_scale_for_the_layer_by_hand():
    kernel = np.float32([[[[1, -3], [0.5, 2], [-0.5, 1]]]])
    x = np.float32([[[[1, -1, 2]]]])
    # The signs of x are 1, -1, 1: (1 - 1 - 1, -1 - 1 + 1) = (-1, -1); mean(abs(W)) = 8/6, and 2/3 and 2 per filter.
    expected = {("mean_abs", "layer"): [-8 / 6, -8 / 6], ("mean_abs", "filter"): [-2 / 3, -2]}
    expected |= {("learned", scope): value for (_, scope), value in expected.items()}
    for (scale, scope), value in expected.items():
        layer = BinaryConv2D(2, 1, input_quantizer="ste", kernel_quantizer="ste", scale=scale, scale_scope=scope)
        layer.build(x.shape)
        layer.latent_kernel.assign(kernel)
        layer.restart_scale()
        for training in (False, True):
            np.testing.assert_allclose(layer(x, training=training)[0, 0, 0], value, rtol=1e-6)
        assert layer.output_scale().shape == (2 if scope == "filter" else 1,)
        assert BinaryConv2D.from_config(layer.get_config()).scale_scope == scope


def test_an_unknown_scope_gets_suggestions():
    with pytest.raises(UsageError, match="unknown scale_scope of conv: received 'filters'; did you mean filter"):
        BinaryConv2D(2, 1, scale="learned", scale_scope="filters", name="conv")


class Counted(quantizers.Estimator):
    """Counts its calls."""

    calls = 0

    @staticmethod
    def surrogate(x, dy):
        return dy

    @staticmethod
    def binarize(x):
        Counted.calls += 1
        return tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x))


def test_building_a_network_infers_shapes_without_quantizing():
    inputs = tf.keras.Input((7, 6, 3))
    convolution = BinaryConv2D(8, 3, 2, input_quantizer=Counted(), kernel_quantizer=Counted(), scale="mean_abs")
    x = BinaryConv2D(8, 3, padding="valid", input_quantizer=Counted(), kernel_quantizer=Counted())(inputs)
    model = tf.keras.Model(inputs, BinaryDense(5, input_quantizer=Counted())(convolution(x)[:, 0, 0]))
    assert Counted.calls == 0
    assert convolution.output_shape == (None, 3, 2, 8)
    assert model(np.ones((2, 7, 6, 3), np.float32)).shape == (2, 5)
    assert Counted.calls == 5
