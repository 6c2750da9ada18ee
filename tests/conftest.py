"""kbnn is imported before any test module can import TensorFlow, so that tf.keras is Keras 2."""

import kbnn  # noqa: F401
