"""What all tests of C code share: a compiler, and real images."""

from pathlib import Path

import numpy as np
import pytest
from compiled import compiler  # noqa: F401

import kbnn


@pytest.fixture(scope="session")
def images():
    with np.load(Path(kbnn.__file__).parent / "examples" / "cifar10.npz") as held:
        pixels = next(held[key] for key in held.files if held[key].ndim == 4)[:64]
    return ((pixels - 120.0) / 63.0).astype(np.float32)
