"""Networks that are converted once for all tests."""

import sys

import pytest

import kbnn
from kbnn.converters.tflite import flatbuffer


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def bireal():
    import sample_networks

    return sample_networks.bireal()


@pytest.fixture(scope="session")
def bireal_path(bireal, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "bireal.tflite"
    kbnn.converters.convert(bireal, path)
    return path


@pytest.fixture
def bireal_file(bireal_path):
    return flatbuffer.read(bireal_path)
