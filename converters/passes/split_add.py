"""A pass that adds a value to one half of the channels, instead of padding it and adding it to all of them.

PresB-Net's grouped convolutions have half of the stream's channels; Keras pads their output with zeros and adds. With
XNNPACK, PAD and ADD of all channels take 1.6 M instructions at 56x56x128 on a Cortex-A72, and SPLIT, ADD and
CONCATENATION take 1.1 M. Without XNNPACK, it is 1.1 M against 1.2 M (results/arm_costs.csv), so the pass is used only
for devices whose runtime has XNNPACK.
"""

from dataclasses import replace

from kbnn.converters.graph.graph import Graph, Node
from kbnn.converters.graph.operations import Add, Concatenate, PadChannels, Part, Split


def split_before_add(graph: Graph) -> Graph:
    """Rewrites each addition of a value that is padded to twice its channels on one side."""
    return graph.rewritten(Add, _split_if_half)


def _split_if_half(graph: Graph, node: Node, _: Add) -> Graph:
    for padded, whole in (node.inputs, node.inputs[::-1]) if len(node.inputs) == 2 else ():
        if _is_half(graph, graph[padded]) and padded != whole:
            return _split(graph, node, graph[padded], graph[whole])
    return graph


def _is_half(graph: Graph, node: Node) -> bool:
    """Whether a node pads its input to twice its channels, on one side, for one reader."""
    pad = node.operation
    if not isinstance(pad, PadChannels) or graph.sole_consumer(node.name) is None:
        return False
    return {pad.before, pad.after} == {0, node.channels // 2} and node.channels % 2 == 0


def _split(graph: Graph, node: Node, padded: Node, whole: Node) -> Graph:
    pad = padded.operation
    added = 1 if isinstance(pad, PadChannels) and pad.before else 0
    shape = (*node.shape[:-1], node.channels // 2)
    halves = Node(graph.unused(f"{node.name}/halves"), Split(2), (whole.name,), (), node.layer)
    parts = [Node(graph.unused(f"{node.name}/half{k}"), Part(k, 2), (halves.name,), shape, node.layer) for k in (0, 1)]
    total = Node(graph.unused(f"{node.name}/sum"), Add(), (parts[added].name, padded.inputs[0]), shape, node.layer)
    ends = [part.name for part in parts]
    ends[added] = total.name
    return graph.with_nodes(halves, *parts, total, replace(node, operation=Concatenate(), inputs=tuple(ends)))
