"""From a trained Keras model to a bitpacked TensorFlow Lite file that is proven equal."""

# The function shadows the room of the same name, whose modules stay importable.
from kbnn.converters.benchmark import benchmark

__all__ = ["benchmark"]
