"""Passes for int8 that replace a PReLU by operators with fast int8 kernels.

PReLU(x) = max(x, slope·x) for slopes up to 1, and max(x, 0) + slope·min(x, 0) for any. In int8, TensorFlow Lite has
only slow kernels for PRELU and LEAKY_RELU: 16.9 M and 10.7 M instructions at 56x56x64 on a Cortex-A72, while MUL and
MAXIMUM take 3.8 M, and MINIMUM, MUL, RELU and ADD 11.9 M (results/arm_costs.csv). Float PRELU is fast.
"""

import math
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Add, Affine, Clip, Maximum, PReLU


def prelu_as_maximum(graph: Graph) -> Graph:
    """Rewrites each PReLU whose slopes are all between 0 and 1."""
    for name in list(graph.nodes):
        node = graph[name]
        prelu = node.operation
        if isinstance(prelu, PReLU) and np.all((prelu.slope >= 0) & (prelu.slope <= 1)):
            graph = _as_maximum(graph, node, prelu.slope)
    return graph


def _as_maximum(graph: Graph, node: Node, slope: np.ndarray) -> Graph:
    scaled = Node(
        graph.unused(f"{node.name}/scaled"), Affine(slope, np.zeros(len(slope))), node.inputs, node.shape, node.layer
    )
    return graph.with_nodes(scaled, replace(node, operation=Maximum(), inputs=(*node.inputs, scaled.name)))


def prelu_of_any_slope(graph: Graph) -> Graph:
    """Rewrites the other PReLUs: as a maximum where no slope is above 1, else as a sum of both sides."""
    for name in list(graph.nodes):
        node = graph[name]
        prelu = node.operation
        if isinstance(prelu, PReLU):
            graph = (_as_maximum if np.all(prelu.slope <= 1) else _as_sum)(graph, node, prelu.slope)
    return graph


def _as_sum(graph: Graph, node: Node, slope: np.ndarray) -> Graph:
    scale = Affine(slope, np.zeros(len(slope)))
    positive = Node(graph.unused(f"{node.name}/positive"), Clip(0.0, math.inf), node.inputs, node.shape, node.layer)
    negative = Node(graph.unused(f"{node.name}/negative"), Clip(-math.inf, 0.0), node.inputs, node.shape, node.layer)
    scaled = Node(graph.unused(f"{node.name}/scaled"), scale, (negative.name,), node.shape, node.layer)
    parts = (positive.name, scaled.name)
    return graph.with_nodes(positive, negative, scaled, replace(node, operation=Add(), inputs=parts))
