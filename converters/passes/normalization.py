"""A pass that splits batch normalization after a PReLU into a scale before the PReLU and a shift after it.

PReLU(k·x) = k·PReLU(x) for k > 0; the scale then merges into the layer normalization or convolution before the PReLU.
For k < 0 and slope s > 0, k·PReLU_s(x) = PReLU_{1/s}(k·s·x).
"""

from dataclasses import replace

import numpy as np

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Affine, PReLU


def scale_before_prelu(graph: Graph) -> Graph:
    """Splits each affine map after a PReLU, if possible."""
    return graph.rewritten(Affine, _split_after_prelu)


def _split_after_prelu(graph: Graph, after: Node, affine: Affine) -> Graph:
    prelu = graph[after.inputs[0]]
    if affine.is_shift or not isinstance(prelu.operation, PReLU) or graph.sole_consumer(prelu.name) is None:
        return graph
    return _split(graph, prelu, prelu.operation, after, affine)


def _split(graph: Graph, prelu: Node, slope: PReLU, after: Node, affine: Affine) -> Graph:
    positive = affine.scale > 0
    if not np.all(positive | ((affine.scale < 0) & (slope.slope > 0))):
        return graph
    before = np.where(positive, affine.scale, affine.scale * slope.slope)
    slopes = np.where(positive, slope.slope, 1 / np.where(positive, 1.0, slope.slope))
    first = Node(
        graph.unused(f"{prelu.name}/scaled"),
        Affine(before, np.zeros(prelu.channels)),
        prelu.inputs,
        prelu.shape,
        prelu.layer,
    )
    rectified = PReLU(slopes, is_leaky=slope.is_leaky and bool(np.all(positive)))
    # No value in Keras corresponds to this one, because it is scaled.
    second = replace(prelu, operation=rectified, inputs=(first.name,), origin=None)
    return graph.with_nodes(first, second, replace(after, operation=Affine.shift(affine.offset)))
