"""Where a network's numbers stopped being finite."""

import math
from typing import Any

import tensorflow as tf

from kbnn.errors import KbnnError
from kbnn.training.built import require_built


class TerminateOnDivergence(tf.keras.callbacks.Callback):
    """Ends your own `fit` with an error when loss or weights are not finite; weights go back to where the epoch began.

    The error names the step, and the layer where the gradients stopped being finite. `kbnn.training.train` needs no
    callback: it refuses the step before a weight changes, and names layers by their outputs, too.

    Raises:
        UsageError: when training starts, the model is not built.
        KbnnError: after the step, or with `steps_per_execution` the steps, that left something NaN or infinite.

    Example:
        >>> model.fit(x, y, callbacks=[kbnn.training.TerminateOnDivergence()])
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        require_built(self)
        # In one call: asking for each weight takes longer than looking at it.
        self._all_finite = tf.function(lambda: tf.reduce_all([_finite(w) for w in self.model.trainable_weights]))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._before = self.model.get_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if math.isfinite((logs or {}).get("loss", 0.0)) and self._all_finite():
            return
        found = _origin(self.model)
        self.model.set_weights(self._before)
        raise KbnnError(
            f"training diverged in step {batch + 1} of epoch {self._epoch + 1}: {found}; the weights are again those "
            f"from before the epoch, go on with a lower learning rate"
        )


def _origin(network: tf.keras.Model) -> str:
    """What the weights tell after a step that was done all the same."""
    trained = [layer for layer in network.layers if layer.trainable_weights]
    if not any(_has_finite_weights(layer) for layer in trained):
        return "the loss is not finite, and no layer's weights are any more"
    return last_non_finite_weights(network) or "the loss is not finite, the weights are"


def first_non_finite(network: tf.keras.Model, images: tf.Tensor) -> str:
    """Names the layer from which NaN or infinity spread, in words.

    Gradients flow towards the input: of layers with non-finite weights the last one is the origin. Activations flow
    away from it: of layers with non-finite outputs the first one is.

    Args:
        network: a functional model.
        images: the batch on which the loss was not finite.
    """
    weights = last_non_finite_weights(network)
    if weights is not None:
        return weights
    layers = [layer for layer in network.layers if not isinstance(layer, tf.keras.layers.InputLayer)]
    outputs = tf.keras.Model(network.inputs, [layer.output for layer in layers])(images, training=True)
    for layer, output in zip(layers, outputs, strict=True):
        if not all(bool(_finite(tensor)) for tensor in tf.nest.flatten(output)):
            return f"layer '{layer.name}' is the first whose output is not finite"
    for layer in layers:
        if not all(bool(_finite(loss)) for loss in layer.losses):
            return f"the penalty of layer '{layer.name}' is not finite"
    return f"all layers are finite, the logits reach {float(tf.reduce_max(tf.abs(outputs[-1]))):.3g}"


def last_non_finite_weights(network: tf.keras.Model) -> str | None:
    """Names the last layer with weights that are not finite, in words; None where there is none."""
    for layer in reversed(network.layers):
        if not _has_finite_weights(layer):
            return f"the weights of layer '{layer.name}' are not finite"
    return None


def _has_finite_weights(layer: tf.keras.layers.Layer) -> bool:
    return all(bool(_finite(weight)) for weight in layer.trainable_weights)


def _finite(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.cast(tensor, tf.float32)))
