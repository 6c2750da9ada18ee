"""kbnn is imported before any test module can import TensorFlow, so that tf.keras is Keras 2."""

import gc
from collections.abc import Iterator

import pytest

import kbnn  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def libraries_are_there_to_stay() -> None:
    """What is imported need not be searched again and again for what is not."""
    import tensorflow as tf

    tf.keras.backend.clear_session()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Frees each test's networks: cycles, which Python would keep until they are gigabytes."""
    yield
    import tensorflow as tf

    tf.keras.backend.clear_session()
    gc.collect()
