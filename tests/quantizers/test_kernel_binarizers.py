"""Kernel binarizers against NumPy float64: forward values, and gradients with respect to the latent kernel."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from kbnn import layers, quantizers
from kbnn.errors import UsageError

KERNELS = reference.kernels()


def magnitude_aware(w, dy):
    alpha = reference.mean_magnitude(w)
    return alpha * reference.sign(w), dy * alpha * reference.ste(w)


def xnor(w, dy):
    alpha = reference.mean_magnitude(w)
    return alpha * reference.sign(w), dy * (1 / reference.size(w) + alpha * reference.ste(w))


def dorefa(w, dy):
    return np.mean(np.abs(w)) * reference.sign(w), dy


def libra(w, dy, surrogate):
    standardized, _, equal = reference.standardized(w, lost_degrees=1)
    mean = np.where(equal, 1.0, reference.mean_magnitude(standardized))
    scale = 2.0 ** np.round(np.log2(mean))
    through = dy * scale * surrogate(standardized)
    return reference.sign(standardized) * scale, reference.standardization_gradient(w, through, lost_degrees=1)


def standardized_ste(w, dy):
    y, _, _ = reference.standardized(w)
    return reference.sign(y), reference.standardization_gradient(w, dy * reference.ste(y))


def standardized_xnor(w, dy):
    alpha = reference.mean_magnitude(w)
    share = 1 / (reference.size(w) * np.where(alpha > 0, alpha, np.inf))
    return reference.sign(reference.standardized(w)[0]), dy * (share + reference.ste(w))


def half_half_identity(w, dy):
    return 2.0 * reference.mark_largest(np.abs(w), reference.size(w) // 2) - 1, dy


def half_half_magnitude(w, dy):
    w2, _, _ = reference.standardized(w, epsilon=1e-5)
    code = 2.0 * reference.mark_largest(np.abs(w2), reference.size(w) // 2) - 1
    return code, reference.standardization_gradient(w, dy * reference.sign(w2), epsilon=1e-5)


def optimal_identity(w, dy):
    return 2.0 * reference.mark_largest(np.abs(w), reference.best_count(np.abs(w))) - 1, dy


def optimal_magnitude(w, dy):
    w2, _, _ = reference.standardized(w, epsilon=1e-5)
    code = 2.0 * reference.mark_largest(np.abs(w2), reference.best_count(np.abs(w2))) - 1
    return code, reference.standardization_gradient(w, dy * reference.sign(w2), epsilon=1e-5)


CASES = {
    "magnitude_aware": (quantizers.MagnitudeAwareSign, magnitude_aware),
    "xnor": (quantizers.XNORSign, xnor),
    "dorefa": (quantizers.DoReFaSign, dorefa),
    "libra ste": (quantizers.LibraSign, lambda w, dy: libra(w, dy, reference.ste)),
    "libra ede": (lambda: quantizers.LibraSign("ede"), lambda w, dy: libra(w, dy, reference.ede)),
    "standardized ste": (quantizers.StandardizedSign, standardized_ste),
    "standardized xnor": (lambda: quantizers.StandardizedSign("xnor"), standardized_xnor),
    "half_half identity": (lambda: quantizers.HalfHalf("identity"), half_half_identity),
    "half_half magnitude": (lambda: quantizers.HalfHalf("magnitude"), half_half_magnitude),
    "optimal identity": (lambda: quantizers.OptimalMagnitude("identity"), optimal_identity),
    "optimal magnitude": (lambda: quantizers.OptimalMagnitude("magnitude"), optimal_magnitude),
}


def forward_and_gradient(quantizer, w, dy):
    w = tf.convert_to_tensor(w)
    quantizer.build(w.shape)
    with tf.GradientTape() as tape:
        tape.watch(w)
        y = quantizer.call(w)
    return y, tape.gradient(y, w, tf.convert_to_tensor(dy))


@pytest.mark.core(*(f"{case}-plain" for case in CASES))
@pytest.mark.parametrize(
    "kind", ["plain", *(pytest.param(kind, marks=pytest.mark.xla) for kind in KERNELS if kind != "plain")]
)
@pytest.mark.parametrize(("make", "formula"), CASES.values(), ids=CASES)
def test_equals_the_formula(make, formula, kind):
    w = KERNELS[kind]
    dy = np.random.default_rng(2).normal(size=w.shape).astype(np.float32)
    y, dw = forward_and_gradient(make(), w, dy)
    expected, gradient = formula(w.astype(np.float64), dy.astype(np.float64))
    np.testing.assert_allclose(y, expected, reference.RTOL, 0)
    # Relative to the largest value: the gradient of standardizing tiny weights grows with their inverse.
    unit = max(np.abs(gradient).max(), 1.0)
    np.testing.assert_allclose(dw / unit, gradient / unit, reference.RTOL, reference.ATOL)


@pytest.mark.xla
@pytest.mark.core("xnor-float32", "dorefa-float32")
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("make", "formula"), CASES.values(), ids=CASES)
def test_finite_for_every_finite_kernel(make, formula, dtype):
    values = [0.0, -0.0, 1.0, -1.0, dtype.max, dtype.min, 1e-7, -1e-7]
    for w in (
        tf.constant(np.resize(values, (3, 3, 5, 7)), dtype),
        tf.fill((3, 3, 5, 7), tf.constant(dtype.max, dtype)),
        tf.zeros((3, 3, 5, 7), dtype),
        tf.fill((1, 1, 1, 2), tf.constant(0.3, dtype)),
    ):
        y, dw = forward_and_gradient(make(), w, tf.ones_like(w))
        assert (y.dtype, dw.dtype) == (dtype, dtype)
        assert np.isfinite(tf.cast(y, tf.float32)).all()
        assert np.isfinite(tf.cast(dw, tf.float32)).all()


def test_standardized_kernels_get_xnor_nets_gradient_in_a_layer_that_scales_them():
    """ML+BMA, algorithm 1: W̃ = α·sign(Ŵ); XNOR-Net's dL/dW is dL/dW̃·(1/n + α·1[abs(W) <= 1])."""
    rng = np.random.default_rng(7)
    x, dy = reference.sign(rng.normal(size=(5, 6))), rng.normal(size=(5, 3))
    layer = layers.BinaryDense(3, kernel_quantizer="standardized_xnor", scale="mean_abs")
    layer.build((None, 6))
    w = rng.normal(0, 0.8, (6, 3)).astype(np.float32)
    layer.kernel.assign(w)
    with tf.GradientTape() as tape:
        y = layer(tf.constant(x, tf.float32))
    scaled = xnor(w.astype(np.float64), x.T @ dy)
    alpha = np.abs(w.astype(np.float64)).mean(0)
    np.testing.assert_allclose(y, x @ (alpha * reference.sign(w - w.mean(0))), 1e-5)
    np.testing.assert_allclose(tape.gradient(y, layer.kernel, tf.constant(dy, tf.float32)), scaled[1], 1e-5)


@pytest.mark.parametrize("gradient", ["magnitude", "ste"])
def test_magnitude_aware_kernels_without_a_limit(gradient: str):
    w = np.array([[2.0, -0.5], [-3.0, 0.1]], np.float32)
    quantizer = quantizers.MagnitudeAwareSign(clip_value=None, gradient=gradient)
    y, dw = forward_and_gradient(quantizer, w, np.ones_like(w))
    np.testing.assert_allclose(y, [[2.5, -0.3], [-2.5, 0.3]], 1e-6)
    np.testing.assert_allclose(dw, [[2.5, 0.3]] * 2 if gradient == "magnitude" else np.ones((2, 2)), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "formula"), CASES.values(), ids=CASES)
def test_dense_kernels_are_per_column(make, formula):
    w = np.random.default_rng(3).normal(size=(31, 6)).astype(np.float32)
    y, dw = forward_and_gradient(make(), w, np.ones_like(w))
    expected, gradient = formula(w.astype(np.float64), np.ones(w.shape))
    np.testing.assert_allclose(y, expected, reference.RTOL, 0)
    np.testing.assert_allclose(dw, gradient, reference.RTOL, reference.ATOL)


@pytest.mark.core("shape0-identity")
@pytest.mark.parametrize("gradient", ["identity", "magnitude"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (3, 3, 1, 4), (3, 3, 7, 4), (3, 3, 32, 3), (2, 2)])
def test_half_half_marks_exactly_half(gradient, shape):
    rng = np.random.default_rng(4)
    for w in (rng.normal(size=shape), np.round(rng.normal(size=shape)), np.zeros(shape), np.ones(shape)):
        code = quantizers.HalfHalf(gradient)(tf.constant(w, tf.float32)).numpy()
        marked = (code == 1).reshape(-1, shape[-1]).sum(0)
        np.testing.assert_array_equal(marked, np.prod(shape[:-1]) // 2)
        assert set(np.unique(code)) <= {-1.0, 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "share"), [("laplace", 0.37), ("normal", 0.54)])
def test_optimal_encoding_marks_the_papers_share(draw, share):
    w = getattr(np.random.default_rng(5), draw)(size=(20000, 20)).astype(np.float32)
    code = quantizers.OptimalMagnitude("identity")(tf.constant(w)).numpy()
    assert (code == 1).mean() == pytest.approx(share, abs=0.005)


def clamped(w, percentile):
    """The authors' code: latent weights are centred per filter, and clamped to percentiles of the layer."""
    centred = w.astype(np.float64) - w.astype(np.float64).mean((0, 1, 2))
    return np.clip(centred, *np.percentile(centred, [percentile, 100 - percentile]))


@pytest.mark.slow
def test_half_half_clamps_latent_weights_after_each_update():
    w = np.random.default_rng(6).normal(0.3, 1, size=(3, 3, 16, 8)).astype(np.float32)
    quantizer = quantizers.HalfHalf("magnitude", percentile=15.0)
    layer = layers.BinaryConv2D(8, 3, kernel_quantizer=quantizer)
    layer.build((None, 8, 8, 16))
    layer.latent_kernel.assign(w)
    optimizer = tf.keras.optimizers.SGD(0.5)
    optimizer.apply_gradients([(tf.ones_like(w), layer.kernel)])
    # A percentile may be one of the two neighbours of NumPy's interpolated one.
    np.testing.assert_allclose(layer.latent_kernel, clamped(w - 0.5, 15), atol=0.01)
    layer.latent_kernel.assign(w)
    quantizer.percentile.assign(0.0)
    optimizer.apply_gradients([(tf.ones_like(w), layer.kernel)])
    np.testing.assert_allclose(layer.latent_kernel, clamped(w, 0), atol=1e-6)


@pytest.mark.slow
def test_half_half_passes_the_whole_gradient_whatever_the_percentile():
    w = tf.constant(np.random.default_rng(6).normal(size=(3, 3, 4, 2)), tf.float32)
    dy = np.random.default_rng(7).normal(size=w.shape)
    for unbiased in (False, True):
        quantizer = quantizers.HalfHalf("magnitude", percentile=15.0, unbiased=unbiased)
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = quantizer(w)
        standardized = reference.standardized(w.numpy().astype(np.float64), int(unbiased), 1e-5)[0]
        expected = reference.standardization_gradient(
            w.numpy().astype(np.float64), dy * reference.sign(standardized), int(unbiased), 1e-5
        )
        np.testing.assert_allclose(tape.gradient(y, w, tf.constant(dy, tf.float32)), expected, 1e-4, 1e-5)


def test_magnitude_aware_with_the_clipped_gradient_of_the_code():
    w = np.float32([[0.5, -2.0], [-1.5, 0.25]])
    kernel = tf.constant(w)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = quantizers.get("magnitude_aware_ste")(kernel)
    np.testing.assert_allclose(y, [[1.0, -1.125], [-1.0, 1.125]])
    np.testing.assert_array_equal(tape.gradient(y, kernel, tf.constant([[3.0, 3.0], [3.0, 3.0]])), [[3, 0], [0, 3]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quantizers.LibraSign("edee"), "unknown gradient: received 'edee'; did you mean ede"),
        (lambda: quantizers.StandardizedSign("xnr"), "did you mean xnor"),
        (lambda: quantizers.HalfHalf("magnitud"), "unknown gradient of HalfHalf.*did you mean magnitude"),
        (lambda: quantizers.MagnitudeAwareSign(gradient="xnor"), "unknown gradient of MagnitudeAwareSign"),
        (lambda: quantizers.HalfHalf(percentile=50.0), "percentile must be in 0..50"),
        (lambda: quantizers.HalfHalf()(tf.keras.Input((8, 8, 4))), "HalfHalf binarizes kernels"),
        (lambda: quantizers.XNORSign().build((3,)), "XNORSign binarizes kernels"),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make()
