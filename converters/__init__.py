"""From a trained Keras model to a bitpacked TensorFlow Lite file that is proven equal."""
