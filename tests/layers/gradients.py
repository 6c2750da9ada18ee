"""Helpers for the tests of layers."""

import tensorflow as tf


def output_and_gradients(layer, x, dy, training=None):
    """A layer's output and the gradients of its input and, by name, of its trainable weights."""
    x = tf.convert_to_tensor(x)
    kwargs = {} if training is None else {"training": training}
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **kwargs)
    weights = layer.trainable_weights
    dx, *others = tape.gradient(y, [x, *weights], tf.cast(dy, y.dtype))
    names = [weight.name.rpartition("/")[2].partition(":")[0] for weight in weights]
    return y, dx, dict(zip(names, others, strict=True))
