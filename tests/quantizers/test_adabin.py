"""AdaBin's layers against NumPy float64: values, and the gradients of everything that is trained."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from kbnn import layers, quantizers
from kbnn.errors import UsageError

ALPHA, BETA = 0.7, 0.2


def windows(values: np.ndarray, strides: int) -> np.ndarray:
    """The patches of a 3x3 "same" convolution, padded with the upper value: `(B, H', W', 9 C)`."""
    sizes = values.shape[1:3]
    pads = [max((-(-size // strides) - 1) * strides + 3 - size, 0) for size in sizes]
    sides = [(pad // 2, pad - pad // 2) for pad in pads]
    padded = np.pad(values, [(0, 0), *sides, (0, 0)], constant_values=BETA + ALPHA)
    outputs = [-(-size // strides) for size in sizes]
    rows = [
        padded[:, i : i + strides * (outputs[0] - 1) + 1 : strides, j : j + strides * (outputs[1] - 1) + 1 : strides]
        for i in range(3)
        for j in range(3)
    ]
    return np.concatenate(rows, -1)


def equalized(w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W_b, Ŵ and α of a kernel `(n, filters)`."""
    mean = w.mean(0)
    deviation = np.sqrt(((w - mean) ** 2).mean(0))
    standardized = (w - mean) / deviation
    return mean + deviation * reference.sign(standardized), standardized, deviation


def kernel_gradient(dwb: np.ndarray, standardized: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """dL/dW of W_b = mean + deviation·sign(Ŵ) with the straight-through estimator at Ŵ."""
    n = len(dwb)
    inner = dwb * deviation * (np.abs(standardized) <= 1)
    through = (inner - inner.mean(0) - standardized * (inner * standardized).mean(0)) / deviation
    return through + (dwb * reference.sign(standardized)).sum(0) * standardized / n + dwb.sum(0) / n


def found(layer, x, dy, training):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=training) if isinstance(layer, layers.BinaryConv2D) else layer(x)
    quantizer = layer.input_quantizer
    wanted = [x, layer.latent_kernel, quantizer.alpha, quantizer.beta]
    return y.numpy(), [value.numpy() for value in tape.gradient(y, wanted, dy)]


@pytest.mark.xla
@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolution_and_its_gradients(strides, training):
    rng = np.random.default_rng(strides)
    x = rng.normal(size=(2, 7, 6, 5)).astype(np.float32)
    layer = layers.BinaryConv2D(
        4,
        3,
        strides,
        input_quantizer=quantizers.AdaptiveSign(ALPHA, BETA),
        kernel_quantizer=quantizers.EqualizedSign(),
    )
    layer.build(x.shape)
    kernel = layer.latent_kernel.numpy().astype(np.float64)
    wb, standardized, deviation = equalized(kernel.reshape(-1, 4))
    u = (x.astype(np.float64) - BETA) / ALPHA
    signs, slope = reference.sign(u), reference.approx_sign(u)
    patches = windows(BETA + ALPHA * signs, strides)
    dy = rng.normal(size=(*patches.shape[:3], 4)).astype(np.float32)
    y, (dx, dw, dalpha, dbeta) = found(layer, x, dy, training)
    np.testing.assert_allclose(y, patches @ wb, 1e-4, 1e-5)

    # The gradient of a pixel is the sum over the patches that contain it; `numbers` are the pixels of each patch.
    dpatches = dy.astype(np.float64) @ wb.T
    numbers = windows(np.arange(1.0, u.size + 1).reshape(u.shape), strides)
    in_image = numbers >= 1
    da = np.zeros(u.size)
    np.add.at(da, numbers[in_image].astype(int) - 1, dpatches[in_image])
    da = da.reshape(u.shape)
    np.testing.assert_allclose(dx, da * slope, 1e-4, 1e-5)
    dwb = patches.reshape(-1, wb.shape[0]).T @ dy.reshape(-1, 4).astype(np.float64)
    np.testing.assert_allclose(dw.reshape(-1, 4), kernel_gradient(dwb, standardized, deviation), 1e-3, 1e-4)
    # Padding has the value β + α, so that both gradients include the sum of the gradients of padding.
    border = dpatches[~in_image].sum()
    np.testing.assert_allclose(dalpha, (da * (signs - slope * u)).sum() + border, 1e-4, 1e-4)
    np.testing.assert_allclose(dbeta, (da * (1 - slope)).sum() + border, 1e-4, 1e-4)


def test_dense_with_a_learned_scale():
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=(3, size)).astype(np.float32) for size in (5, 4))
    layer = layers.BinaryDense(
        4, input_quantizer=quantizers.AdaptiveSign(ALPHA, BETA), kernel_quantizer="ste_sign", scale="learned"
    )
    layer.build(x.shape)
    scale = layer.alpha.numpy().astype(np.float64)
    signs = reference.sign(layer.latent_kernel.numpy().astype(np.float64))
    u = (x - BETA) / ALPHA
    values = BETA + ALPHA * reference.sign(u)
    y, (dx, *_) = found(layer, x, dy, None)
    np.testing.assert_allclose(y, values @ signs * scale, 1e-4, 1e-5)
    np.testing.assert_allclose(dx, (dy * scale) @ signs.T * reference.approx_sign(u), 1e-4, 1e-5)


@pytest.mark.slow
def test_values_of_a_kernel_by_hand():
    """Weights 3, 1, 1, -1: mean 1, deviation √2; equal weights are their own value."""
    w = np.array([[3.0, 0.5], [1.0, 0.5], [1.0, 0.5], [-1.0, 0.5]], np.float32)
    quantizer = quantizers.EqualizedSign()
    quantizer.build(w.shape)
    root = np.sqrt(2.0)
    expected = [[1 + root, 0.5], [1 + root, 0.5], [1 + root, 0.5], [1 - root, 0.5]]
    np.testing.assert_allclose(quantizer.call(tf.constant(w)), expected, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, -0.25, 1e-30, 1e30])
def test_filters_of_equal_weights_stay_finite(weight):
    w = tf.fill((3, 3, 4, 2), tf.constant(weight, tf.float32))
    quantizer = quantizers.EqualizedSign(gradient="ede")
    quantizer.build(w.shape)
    with tf.GradientTape() as tape:
        tape.watch(w)
        y = quantizer.call(w)
    np.testing.assert_allclose(y, w, 1e-6)
    assert np.isfinite(tape.gradient(y, w)).all()


def test_activations_start_as_signs_around_zero():
    quantizer = quantizers.AdaptiveSign()
    quantizer.build((1, 4))
    np.testing.assert_array_equal(quantizer.call(tf.constant([[-1.0, -0.0, 0.0, 2.0]])), [[-1, 1, 1, 1]])
    assert [float(value) for value in quantizer.values()] == [1.0, 0.0]
    assert quantizer.alpha.constraint(tf.constant(-1.0)) > 0


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(UsageError, match=f"alpha must be positive, received {alpha}"):
        quantizers.AdaptiveSign(alpha)
