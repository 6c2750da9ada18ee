"""Passes for int8: signs before a PReLU, and PReLUs as operators with fast int8 kernels.

PReLU(x) = max(x, slope·x) for slopes up to 1, and max(x, 0) + slope·min(x, 0) for any. In int8, TensorFlow Lite has
only slow kernels for PRELU and LEAKY_RELU: 16.9 M and 10.7 M instructions at 56x56x64 on a Cortex-A72, while MUL and
MAXIMUM take 3.8 M, and MINIMUM, MUL, RELU and ADD 11.9 M (results/arm_costs.csv). Float PRELU is fast.
"""

import math
from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Add, Affine, Clip, Maximum, PReLU, Sign


def signs_before_prelu(graph: Graph) -> Graph:
    """Takes the sign of a PReLU's input instead of its output.

    A small slope brings negative values so close to zero that int8 rounds them to zero, whose sign is +1. Channels
    whose slope is not positive have the sign +1 for every value; a PReLU of slope 0 gives them that, and slope 1 leaves
    the other channels as they are.
    """
    return graph.rewritten(Sign, _before_prelu)


def _before_prelu(graph: Graph, sign: Node, _: Sign) -> Graph:
    prelu = graph[sign.inputs[0]]
    if not isinstance(prelu.operation, PReLU):
        return graph
    keeps_signs = prelu.operation.slope > 0
    if keeps_signs.all():
        return graph.with_nodes(replace(sign, inputs=prelu.inputs))
    name = graph.unused(f"{sign.layer}/side")
    slope = keeps_signs.astype(np.float64)
    side = Node(name, PReLU(slope), prelu.inputs, prelu.shape, sign.layer)
    graph = graph.with_nodes(side, replace(sign, inputs=(name,)))
    # LCE's converter would find no PReLU in two that share an input.
    return _as_maximum(graph, side, slope)


def prelu_as_maximum(graph: Graph) -> Graph:
    """Rewrites each PReLU whose slopes are all between 0 and 1."""
    return graph.rewritten(PReLU, _as_maximum_if_equal)


def _as_maximum_if_equal(graph: Graph, node: Node, prelu: PReLU) -> Graph:
    is_equal = np.all((prelu.slope >= 0) & (prelu.slope <= 1))
    return _as_maximum(graph, node, prelu.slope) if is_equal else graph


def _as_maximum(graph: Graph, node: Node, slope: np.ndarray) -> Graph:
    scaled = Node(
        graph.unused(f"{node.name}/scaled"), Affine(slope, np.zeros(len(slope))), node.inputs, node.shape, node.layer
    )
    return graph.with_nodes(scaled, replace(node, operation=Maximum(), inputs=(*node.inputs, scaled.name)))


def prelu_of_any_slope(graph: Graph) -> Graph:
    """Rewrites the other PReLUs: as a maximum where no slope is above 1, else as a sum of both sides."""
    return graph.rewritten(PReLU, _as_maximum_or_sum)


def _as_maximum_or_sum(graph: Graph, node: Node, prelu: PReLU) -> Graph:
    return (_as_maximum if np.all(prelu.slope <= 1) else _as_sum)(graph, node, prelu.slope)


def _as_sum(graph: Graph, node: Node, slope: np.ndarray) -> Graph:
    scale = Affine(slope, np.zeros(len(slope)))
    positive = Node(graph.unused(f"{node.name}/positive"), Clip(0.0, math.inf), node.inputs, node.shape, node.layer)
    negative = Node(graph.unused(f"{node.name}/negative"), Clip(-math.inf, 0.0), node.inputs, node.shape, node.layer)
    scaled = Node(graph.unused(f"{node.name}/scaled"), scale, (negative.name,), node.shape, node.layer)
    parts = (positive.name, scaled.name)
    return graph.with_nodes(positive, negative, scaled, replace(node, operation=Add(), inputs=parts))
