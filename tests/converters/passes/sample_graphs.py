"""Small graphs of the converter's intermediate form with random constants."""

import numpy as np
import tensorflow as tf

from kbnn.converters.graph.graph import Node, build
from kbnn.converters.graph.operations import Add, Affine, BinaryConvolution, GlobalMean, Input, PReLU, Sign
from kbnn.converters.tflite.converter import lower

SHAPE = (6, 6, 32)


class Builder:
    """Builds a graph by adding operations in order; values are referred to by name."""

    def __init__(self, shape=SHAPE, seed=0):
        self.random = np.random.default_rng(seed)
        self.nodes = [Node("image", Input(), (), shape, "image")]

    def add(self, name, operation, *inputs, shape=None):
        source = next(node for node in self.nodes if node.name == inputs[0])
        self.nodes.append(Node(name, operation, inputs, shape or source.shape, name))
        return name

    def graph(self, *outputs):
        return build(self.nodes, {name: name for name in outputs})

    def shift(self, name, x):
        return self.add(name, Affine(np.ones(self.channels(x)), self.random.normal(size=self.channels(x))), x)

    def affine(self, name, x):
        scale = self.random.uniform(0.5, 1.5, self.channels(x))
        return self.add(name, Affine(scale, self.random.normal(size=self.channels(x))), x)

    def prelu(self, name, x):
        return self.add(name, PReLU(self.random.uniform(0.1, 0.5, self.channels(x))), x)

    def rprelu(self, name, x):
        """PReLU(x - γ) + ζ."""
        return self.shift(f"{name}_zeta", self.prelu(name, self.shift(f"{name}_gamma", x)))

    def sign(self, name, x):
        return self.add(name, Sign(), x)

    def convolution(self, name, x, filters=32, groups=1):
        """Sign, binary 3x3 convolution, batch normalization."""
        channels = self.channels(x)
        kernel = self.random.choice([-1.0, 1.0], (3, 3, channels // groups, filters)).astype(np.float32)
        rows = np.tile(np.arange(channels // groups), (groups, 1))
        sides = ((1, 1), (1, 1))
        operation = BinaryConvolution(0, kernel, rows, np.arange(filters), (1, 1), (1, 1), sides, 1.0)
        shape = (*SHAPE[:2], filters)
        y = self.add(f"{name}/conv", operation, self.sign(f"{name}/sign", x), shape=shape)
        scale = self.random.uniform(0.02, 0.1, filters)
        return self.add(name, Affine(scale, self.random.normal(size=filters)), y)

    def sum(self, name, *values):
        return self.add(name, Add(), *values)

    def mean(self, name, x):
        return self.add(name, GlobalMean(), x, shape=(self.channels(x),))

    def channels(self, x):
        return next(node for node in self.nodes if node.name == x).channels


def values(graph, seed=1):
    """The outputs on random images."""
    generator = np.random.default_rng(seed)
    images = {
        node.name: tf.constant(generator.normal(size=(8, *node.shape)), tf.float32)
        for node in graph
        if isinstance(node.operation, Input)
    }
    found = graph.run(images)
    return {name: found[node].numpy() for name, node in graph.outputs.items()}


def assert_equal(before, after):
    """Checks that both graphs compute the same up to float rounding, which may flip one sign in a thousand."""
    expected, found = values(before), values(after)
    for name, value in expected.items():
        differs = np.abs(found[name] - value) > 2e-6 * max(1.0, np.ptp(value))
        assert differs.mean() < 1e-3, f"{name}: {differs.mean():.2%} of the values differ"


def operators(graph):
    """The operators of the converted file, in order."""
    return [operator.name for operator in lower(graph, {}).operators]
