"""Convolutions that recompute the input of their sign have equal values and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from kbnn.layers import BatchMedian, BinaryConv2D, ChannelShift, rematerialization

X = np.random.default_rng(0).normal(0.2, 1, (4, 6, 6, 8)).astype(np.float32)


def built(before: tf.keras.layers.Layer) -> BinaryConv2D:
    signs = {"input_quantizer": "approx_sign", "kernel_quantizer": "ste_sign"}
    convolution = BinaryConv2D(16, 3, dtype=before.dtype_policy, **signs)
    for layer in (before, convolution):
        layer.build(X.shape)
    rng = np.random.default_rng(1)
    for weight in before.trainable_weights:
        weight.assign(rng.uniform(0.2, 1.5, weight.shape))
    return convolution


def called(before: tf.keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
    return before(x, training=True) if isinstance(before, BatchMedian) else before(x)


def step(before: tf.keras.layers.Layer, convolution: BinaryConv2D, pass_on=lambda y: y) -> dict[str, np.ndarray]:
    x = tf.cast(X, before.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = convolution(pass_on(called(before, x)), training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * np.random.default_rng(2).normal(size=y.shape).astype(np.float32))
    sources = {"x": x, **{weight.name: weight for weight in (*before.trainable_weights, convolution.latent_kernel)}}
    return {"y": y, **tape.gradient(loss, sources)}


@pytest.mark.core("ChannelShift-float32")
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("float32", id="float32, uncompiled"),
        *(pytest.param(policy, marks=pytest.mark.xla) for policy in ("float32", "mixed_bfloat16", "mixed_float16")),
    ],
)
@pytest.mark.parametrize("layer", [ChannelShift, BatchMedian])
def test_recomputing_equals_the_stored_input(layer, policy):
    before = layer(dtype=policy)
    convolution = built(before)
    recomputed = step(before, convolution)
    read = step(before, convolution, tf.identity)
    for name, value in read.items():
        np.testing.assert_array_equal(tf.cast(recomputed[name], tf.float32), tf.cast(value, tf.float32), name)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [ChannelShift, BatchMedian])
def test_layers_attach_the_expression_of_their_output(layer):
    before = layer()
    built(before)
    y = called(before, tf.constant(X))
    function, tensors = rematerialization.expression(y)
    np.testing.assert_array_equal(tensors[0], X)
    np.testing.assert_allclose(function(*tensors), y, 1e-6)


def test_a_tensor_without_an_expression_is_returned():
    x = tf.constant(X)
    function, tensors = rematerialization.expression(x)
    assert function(*tensors) is x
