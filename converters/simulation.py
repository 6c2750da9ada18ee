"""What an int8 file has to compute: its graph, with each value rounded where the file rounds it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from kbnn.converters.deploy.graph import Graph

_BATCH = 16


def batches(inputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Inputs by name, some samples at a time."""
    size = len(next(iter(inputs.values())))
    for k in range(0, size, _BATCH):
        yield {name: array[k : k + _BATCH] for name, array in inputs.items()}


def simulated(graph: Graph, inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """The values of nodes for a batch of inputs by name."""
    parts = []
    for batch in batches(inputs):
        values = graph.run({name: tf.constant(array) for name, array in batch.items()})
        parts.append([values[name].numpy() for name in names])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]
