"""kbnn is imported before any test module can import TensorFlow, so that tf.keras is Keras 2."""

import gc
from collections.abc import Iterator

import pytest

import kbnn  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def libraries_are_there_to_stay() -> None:
    """What is imported need not be searched again and again for what is not; what TensorFlow says once, it has said."""
    import tensorflow as tf

    tf.config.list_logical_devices()
    tf.keras.backend.clear_session()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Frees each test's networks, which are cycles, and their graphs: kept, they come to gigabytes over a run."""
    yield
    import tensorflow as tf
    from tensorflow.python.framework import ops

    tf.keras.backend.clear_session()
    # TensorFlow keeps every gradient of one's own that was ever traced into a graph, and with it the graph.
    gradients = ops.gradient_registry._registry
    for name in [name for name in gradients if name.startswith("CustomGradient-")]:
        del gradients[name]
    gc.collect()
