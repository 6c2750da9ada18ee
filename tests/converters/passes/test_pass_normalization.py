"""The cheap forms of layer normalization, PReLU and batch normalization."""

import numpy as np
import pytest
from sample_graphs import Builder, assert_equal, operators

from kbnn.converters.graph.operations import Affine, Normalize, PReLU
from kbnn.converters.passes.affine import merge_affine
from kbnn.converters.passes.normalization import scale_before_prelu
from kbnn.converters.passes.thresholds import signs_as_thresholds


def normalize(b, x, groups=1):
    scale, offset = b.random.uniform(0.5, 2, 32), b.random.normal(size=32)
    return b.add("norm", Normalize(groups, 1e-5, scale, offset), x)


def kinds(graph):
    return [type(node.operation).__name__ for node in graph]


@pytest.mark.parametrize("groups", [1, 2])
def test_layer_normalization_absorbs_the_affine_map_after_it(groups):
    b = Builder()
    graph = b.graph(b.affine("bn", normalize(b, "image", groups)))
    rewritten = merge_affine(graph)
    assert kinds(rewritten) == ["Input", "Normalize"]
    assert_equal(graph, rewritten)


def test_layer_normalization_is_fourteen_operators():
    b = Builder()
    assert sorted(operators(b.graph(normalize(b, "image")))) == [
        *["ADD"] * 2,
        *["MEAN"] * 4,
        *["MUL"] * 5,
        "RSQRT",
        *["SUB"] * 2,
    ]


def test_each_group_is_normalized_by_itself():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 6, 32)).astype(np.float32)
    scale, offset = rng.normal(size=32), rng.normal(size=32)
    found = Normalize(2, 1e-5, scale, offset)(x).numpy()
    for group in (slice(0, 16), slice(16, 32)):
        part = x[..., group].astype(np.float64)
        mean, variance = part.mean((1, 2, 3), keepdims=True), part.var((1, 2, 3), keepdims=True)
        expected = (part - mean) / np.sqrt(variance + 1e-5) * scale[group] + offset[group]
        np.testing.assert_allclose(found[..., group], expected, atol=2e-6)


@pytest.mark.parametrize("signs", ["positive", "mixed"])
def test_a_scale_after_a_prelu_moves_before_it(signs):
    b = Builder()
    scale = b.random.uniform(0.5, 2, 32) * (b.random.choice([-1, 1], 32) if signs == "mixed" else 1)
    x = b.prelu("prelu", b.shift("bias", normalize(b, "image")))
    graph = b.graph(b.add("bn", Affine(scale, b.random.normal(size=32)), x))
    rewritten = merge_affine(scale_before_prelu(graph))
    assert kinds(rewritten) == ["Input", "Normalize", "PReLU", "Affine"]
    assert rewritten["bn"].operation.is_shift
    assert_equal(graph, rewritten)


def test_a_falling_prelu_keeps_a_negative_scale():
    b = Builder()
    x = b.add("prelu", PReLU(np.full(32, -0.1)), "image")
    graph = b.graph(b.add("bn", Affine(np.full(32, -1.0), np.zeros(32)), x))
    assert scale_before_prelu(graph) is graph


def test_a_sign_sees_only_the_mean():
    b = Builder()
    norm = b.add("norm", Normalize(1, 1e-5, np.ones(32), np.zeros(32)), "image")
    graph = b.graph(b.sign("sign", norm))
    rewritten = signs_as_thresholds(graph)
    assert kinds(rewritten) == ["Input", "Centre", "Sign"]
    assert_equal(graph, rewritten)
    assert operators(rewritten) == ["MEAN", "MEAN", "SUB", "LceQuantize", "LceDequantize"]
