"""What callbacks ask of a model before they look at its variables."""

import tensorflow as tf

from kbnn.errors import UsageError


def require_built(callback: tf.keras.callbacks.Callback) -> None:
    """Raises UsageError if the callback's model has no variables yet, as subclassed ones before their first batch."""
    if not callback.model.built:
        raise UsageError(
            f"{type(callback).__name__} needs a model that is built: received '{callback.model.name}' without "
            f"variables, call it on a batch before fit"
        )
