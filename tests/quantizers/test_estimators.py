"""Surrogate gradients against NumPy float64, on grids with every edge case."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import tensorflow as tf

from kbnn import quantizers
from kbnn.errors import UsageError

CASES = {
    "ste": (quantizers.SteSign, reference.ste),
    "leaky_ste": (quantizers.LeakySteSign, reference.leaky_ste),
    "leaky_ste 0.2": (lambda: quantizers.LeakySteSign(0.2), lambda x: reference.leaky_ste(x, 0.2)),
    "approx_sign": (quantizers.ApproxSign, reference.approx_sign),
    "tanh": (quantizers.TanhSign, reference.tanh),
    "ede": (quantizers.EDESign, reference.ede),
    "ede t=10": (lambda: quantizers.EDESign(10.0, 1.0), lambda x: reference.ede(x, 10.0, 1.0)),
    "sign_swish": (quantizers.SignSwish, reference.sign_swish),
    "sign_swish 10": (lambda: quantizers.SignSwish(10.0), lambda x: reference.sign_swish(x, 10.0)),
}


def applied(quantizer, x):
    """The quantizer applied to `x` in its own dtype; Keras would cast it to the policy's."""
    quantizer.build(x.shape)
    return quantizer.call(x)


def forward_and_gradient(quantizer, x, dy):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = applied(quantizer, x)
    return y, tape.gradient(y, x, tf.cast(dy, x.dtype))


@pytest.mark.xla
@pytest.mark.parametrize(("make", "derivative"), CASES.values(), ids=CASES)
def test_equals_the_formula(make, derivative):
    x = np.concatenate([reference.activations(5.0), reference.activations(10.0)])
    dy = np.linspace(-2, 2, len(x), dtype=np.float32)
    y, dx = forward_and_gradient(make(), x, dy)
    np.testing.assert_array_equal(y, reference.sign(x))
    expected = dy.astype(np.float64) * derivative(x.astype(np.float64))
    np.testing.assert_allclose(dx, expected, reference.RTOL, reference.ATOL)


@pytest.mark.parametrize(("make", "derivative"), CASES.values(), ids=CASES)
def test_gradient_function_equals_the_tape(make, derivative):
    quantizer = make()
    x, dy = tf.constant(reference.activations()), tf.ones(len(reference.activations()))
    _, dx = forward_and_gradient(quantizer, x.numpy(), dy.numpy())
    np.testing.assert_allclose(quantizers.input_gradient(quantizer)(x, dy), dx, 1e-6, 1e-6)


ROUNDING = {tf.float32: 2e-6, tf.bfloat16: 2**-7, tf.float16: 2**-10}


@pytest.mark.xla
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(("make", "derivative"), CASES.values(), ids=CASES)
def test_finite_for_every_finite_input(make, derivative, dtype):
    x = tf.constant(np.concatenate([reference.activations(), [dtype.max, dtype.min]]).clip(dtype.min, dtype.max), dtype)
    y, dx = forward_and_gradient(make(), x, tf.ones_like(x))
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    assert np.isfinite(tf.cast(y, tf.float32)).all()
    assert np.isfinite(tf.cast(dx, tf.float32)).all()
    np.testing.assert_allclose(
        tf.cast(dx, tf.float64), derivative(tf.cast(x, tf.float64).numpy()), ROUNDING[dtype], ROUNDING[dtype]
    )


def test_sign_swish_by_hand():
    x = [0.0, reference.ZERO_OF_SIGN_SWISH / 5, -reference.ZERO_OF_SIGN_SWISH / 5, 1.0, -1.0]
    _, dx = forward_and_gradient(quantizers.SignSwish(5.0), np.float32(x), np.ones(5, np.float32))
    np.testing.assert_allclose(dx, [5, 0, 0, -0.195, -0.195], atol=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 5.0, 10.0])
def test_gradient_of_beta(beta):
    quantizer = quantizers.SignSwish(beta, trainable_beta=True)
    rng = np.random.default_rng(1)
    for x in (rng.normal(size=200), reference.activations(beta), np.abs(rng.normal(size=50)), np.zeros(3)):
        x, dy = np.float32(x), rng.normal(size=len(x)).astype(np.float32)
        with tf.GradientTape() as tape:
            y = quantizer(tf.constant(x))
        gradient = tape.gradient(y, quantizer.beta, tf.constant(dy))
        expected = reference.sign_swish_beta(x.astype(np.float64), dy.astype(np.float64), beta)
        np.testing.assert_allclose(gradient, expected, reference.RTOL, reference.ATOL)


def test_gradient_of_beta_is_the_derivative_of_sign_swish():
    def sign_swish(x, beta):
        sigma = 1 / (1 + np.exp(-beta * x))
        return 2 * sigma * (1 + beta * x * (1 - sigma)) - 1

    x, step = np.linspace(-2, 2, 41), 1e-5
    numeric = (sign_swish(x, 5 + step) - sign_swish(x, 5 - step)) / (2 * step)
    each = [reference.sign_swish_beta(value, 1.0, 5.0) for value in x]
    np.testing.assert_allclose(each, numeric, atol=1e-8)


def test_fixed_beta_is_not_trainable():
    quantizer = quantizers.SignSwish(5.0)
    quantizer.build((None, 3))
    assert quantizer.trainable_weights == []
    assert float(quantizer.beta) == 5.0


def test_trained_beta_stays_positive():
    quantizer = quantizers.SignSwish(1e-2, trainable_beta=True)
    quantizer.build((None, 3))
    optimizer = tf.keras.optimizers.SGD(1.0)
    optimizer.apply_gradients([(tf.constant(5.0), quantizer.beta)])
    assert float(quantizer.beta) > 0


def test_schedule_changes_a_compiled_step():
    quantizer = quantizers.EDESign()
    x = tf.constant([0.3, -2.0])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        return tape.gradient(y, x)

    np.testing.assert_allclose(step(), reference.ede(x.numpy()), 1e-5)
    quantizer.t.assign(10.0)
    quantizer.k.assign(1.0)
    np.testing.assert_allclose(step(), reference.ede(x.numpy().astype(float), 10.0, 1.0), 1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quantizers.SignSwish(0.0), "beta must be positive, received 0.0"),
        (lambda: quantizers.SignSwish(float("nan")), "beta must be positive"),
        (lambda: quantizers.EDESign(t=-1.0), "t and k must be positive, received t=-1.0"),
        (lambda: quantizers.LeakySteSign(-0.1), "slope must not be negative"),
        (lambda: quantizers.estimator("approx"), "unknown gradient: received 'approx'; did you mean approx_sign"),
        (lambda: quantizers.estimator(quantizers.XNORSign()), "no surrogate gradient"),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("kind", [staticmethod, classmethod, lambda surrogate: surrogate, tf.function])
def test_a_surrogate_may_be_any_kind_of_method(kind: Callable[..., object]):
    def surrogate(*arguments: tf.Tensor) -> tf.Tensor:
        *_, x, dy = arguments
        return dy * x

    sign = type("Sign", (quantizers.Estimator,), {"surrogate": kind(surrogate)})
    x = tf.constant([[2.0, -3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = sign()(x)
    np.testing.assert_array_equal(outputs, [[1.0, -1.0]])
    np.testing.assert_array_equal(tape.gradient(outputs, x), x)
