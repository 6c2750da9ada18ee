"""Where a network's numbers stopped being finite."""

import tensorflow as tf


def first_non_finite(network: tf.keras.Model, images: tf.Tensor) -> str:
    """Names the layer from which NaN or infinity spread, in words.

    Gradients flow towards the input: of layers with non-finite weights the last one is the origin. Activations flow
    away from it: of layers with non-finite outputs the first one is.

    Args:
        network: a functional model.
        images: the batch on which the loss was not finite.
    """
    for layer in reversed(network.layers):
        for weight in layer.trainable_weights:
            if not _finite(weight):
                return f"the weights of layer '{layer.name}' are not finite"
    layers = [layer for layer in network.layers if not isinstance(layer, tf.keras.layers.InputLayer)]
    outputs = tf.keras.Model(network.inputs, [layer.output for layer in layers])(images, training=True)
    for layer, output in zip(layers, outputs, strict=True):
        if not all(_finite(tensor) for tensor in tf.nest.flatten(output)):
            return f"layer '{layer.name}' is the first whose output is not finite"
    for layer in layers:
        if not all(_finite(loss) for loss in layer.losses):
            return f"the penalty of layer '{layer.name}' is not finite"
    return f"all layers are finite, the logits reach {float(tf.reduce_max(tf.abs(outputs[-1]))):.3g}"


def _finite(tensor: tf.Tensor) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tf.cast(tensor, tf.float32))))
