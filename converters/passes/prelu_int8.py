"""A pass for int8 that replaces a PReLU by a multiplication and a maximum.

max(x, slope·x) = PReLU(x) for slopes from 0 to 1. In int8, TensorFlow Lite has only slow kernels for PRELU and
LEAKY_RELU: 16.9 M and 10.7 M instructions at 56x56x64 on a Cortex-A72, while MUL and MAXIMUM take 3.8 M
(results/arm_costs.csv). Float PRELU is fast.
"""

from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, Maximum, PReLU


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
