"""kbnn is imported before any test module can import TensorFlow, so that tf.keras is Keras 2."""

import gc
import sys
from collections.abc import Iterator

import pytest

import kbnn  # noqa: F401


@pytest.fixture(autouse=True, scope="module")
def nothing_left_behind() -> Iterator[None]:
    """Frees the graphs of a module's tests: kept, they come to gigabytes over a run."""
    yield
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].keras.backend.clear_session()
    gc.collect()
