"""Training of classifiers: cross-entropy, label smoothing, distillation, and an error when the loss is not finite."""

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from kbnn import structure
from kbnn.errors import KbnnError, UsageError

# With at most this many classes, top-5 accuracy is always 1.
FIVE = 5


class DivergenceError(KbnnError):
    """Training diverged: a loss or a weight is NaN or infinite.

    Args:
        step: the first step that failed, counted from 1.
        origin: a phrase that names the layer where it started.
        remedy: what to do.
        epoch: the epoch of that step, if known.
    """

    def __init__(
        self, step: int, origin: str, remedy: str = "train again with a lower learning rate", epoch: int | None = None
    ) -> None:
        of_epoch = "" if epoch is None else f" (epoch {epoch})"
        super().__init__(f"training diverged in step {step}{of_epoch}: {origin}; {remedy}")
        self.step = step
        self.origin = origin


class Learner(tf.keras.Model):
    """Trains a network that returns logits; compile and fit it instead of the network.

    Loss: (1 - share)·H(q, softmax(z)) + share·T²·KL(softmax(t/T), softmax(z/T)) + Σ penalties, with logits z, the
    teacher's logits t, and targets q = (1 - ε)·[label] + ε/K over K classes. Without a teacher, share = 0.

    The learner shares its layers and weights with the network: save the network. A loss that is not finite raises
    `DivergenceError` before it changes a weight. Without shortcuts, signs hide NaN from the loss, so weights are also
    checked at the end of each epoch. In the logs, `loss` is the loss without penalties, `penalty` the sum of penalties,
    `accuracy` the top-1 and, with more than five classes, `top5` the top-5 accuracy. Evaluation uses neither smoothing
    nor teacher.

    Args:
        network: a functional or sequential model that returns logits `(B, K)`.
        label_smoothing: ε.
        teacher: a model that takes the same images and returns logits of the same classes; it is not trained.
        share: weight of the teacher in the loss, in (0, 1].
        temperature: T, positive.

    Raises:
        UsageError: the network is subclassed, the teacher does not fit it, one of them ends with a softmax, or an
            argument is out of range.

    Example:
        >>> learner = kbnn.training.Learner(student, teacher=teacher, share=0.5, temperature=4.0)
        >>> learner.compile("adam")
        >>> learner.fit(images, labels, epochs=10, callbacks=[kbnn.training.QuantizerSchedule()])
        >>> student.save("student.keras")

    Source: Hinton et al., Distilling the knowledge in a neural network, 2015, section 2.
    """

    def __init__(
        self,
        network: tf.keras.Model,
        *,
        label_smoothing: float = 0.0,
        teacher: tf.keras.Model | None = None,
        share: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        _check(network, teacher, label_smoothing, share, temperature)
        super().__init__(network.inputs, network.outputs[0], name=network.name)
        # Wrapped in functions, so that Keras does not track them as parts of this model.
        self._teach = None if teacher is None else lambda images: teacher(images, training=False)
        self._added_losses = lambda: network.losses
        self._smoothing = label_smoothing
        self._share = share
        self._temperature = temperature
        # Created here, so that a checkpoint in the middle of an epoch contains them.
        self._loss = tf.keras.metrics.Mean(name="loss")
        self._penalty = tf.keras.metrics.Mean(name="penalty")
        self._measures = measures(network.output_shape[-1])
        self._failed_images: np.ndarray | None = None
        self._steps_before = 0

    def compile(
        self,
        optimizer: str | tf.keras.optimizers.Optimizer = "rmsprop",
        metrics: Sequence[tf.keras.metrics.Metric] | None = None,
        **kwargs: object,
    ) -> None:
        """As Keras's `compile`, but without a loss, which is fixed; `metrics` replace top-1 and top-5 accuracy."""
        super().compile(optimizer, **kwargs)
        if metrics is not None:
            self._measures = list(metrics)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        return [self._loss, self._penalty, *self._measures]

    @property
    def losses(self) -> list[tf.Tensor]:
        """The penalties of the network's layers, and those added to the network itself."""
        added: list[tf.Tensor] = self._added_losses()
        return added

    def fit(self, *args: object, **kwargs: object) -> tf.keras.callbacks.History:
        """As Keras's `fit`.

        Raises:
            DivergenceError: the loss of a step is not finite, and the weights are those from before that step; or at
                the end of an epoch, a weight is not finite.
        """
        self._steps_before = int(self.optimizer.iterations.numpy())
        self._failed_images = None
        given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
        callbacks = given.pop("callbacks", None)
        # First, so that no other callback saves the weights.
        check = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.check_weights())
        callbacks = [check, *([] if callbacks is None else tf.nest.flatten(callbacks))]
        try:
            return super().fit(**given, callbacks=callbacks)
        except (tf.errors.OpError, _NotFiniteError) as error:
            if self._failed_images is None:
                raise
            raise DivergenceError(self._steps() + 1, first_non_finite(self, self._failed_images)) from error

    def _steps(self) -> int:
        """Finished steps of the current `fit`."""
        return int(self.optimizer.iterations.numpy()) - self._steps_before

    def check_weights(self) -> None:
        """Checks trained weights, before they are saved.

        Raises:
            DivergenceError: one of them is not finite.
        """
        found = _last_non_finite_weights(self)
        if found is not None:
            raise DivergenceError(self._steps(), found)

    def compute_loss(
        self,
        x: tf.Tensor | None = None,
        y: tf.Tensor | None = None,
        y_pred: tf.Tensor | None = None,
        sample_weight: tf.Tensor | None = None,
    ) -> tf.Tensor:
        logits = tf.cast(y_pred, tf.float32)
        losses = cross_entropy(y, logits, self._smoothing)
        if sample_weight is not None:
            losses *= tf.cast(sample_weight, tf.float32)
        if self._teach is not None:
            taught = soft_divergence(logits, self._teach(x), self._temperature)
            losses = (1 - self._share) * losses + self._share * taught
        penalty = self._penalties()
        self._measure(losses, penalty, y, logits)
        # Keras adds up the gradients of replicas.
        return self._finite(tf.reduce_mean(losses) + penalty, x) / tf.distribute.get_strategy().num_replicas_in_sync

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        images, labels, _ = tf.keras.utils.unpack_x_y_sample_weight(data)
        logits = tf.cast(self(images, training=False), tf.float32)
        self._measure(cross_entropy(labels, logits), self._penalties(), labels, logits)
        return self.compute_metrics(images, labels, logits, None)

    def _measure(self, losses: tf.Tensor, penalty: tf.Tensor, labels: tf.Tensor, logits: tf.Tensor) -> None:
        self._loss.update_state(losses)
        self._penalty.update_state(penalty)
        for metric in self._measures:
            metric.update_state(labels, logits)

    def _penalties(self) -> tf.Tensor:
        terms = [tf.cast(loss, tf.float32) for loss in self.losses]
        return tf.add_n(terms) if terms else tf.constant(0.0)

    def _finite(self, loss: tf.Tensor, images: tf.Tensor | None) -> tf.Tensor:
        """The loss. If it is not finite, computing it or its gradient fails before any weight changes."""

        @tf.custom_gradient
        def checked(loss: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            passed = tf.cond(tf.math.is_finite(loss), lambda: True, lambda: self._fail(images))

            def gradient(dy: tf.Tensor) -> tf.Tensor:
                with tf.control_dependencies([passed]):
                    return tf.identity(dy)

            with tf.control_dependencies([passed]):
                return tf.identity(loss), gradient

        return checked(loss)

    def _fail(self, images: tf.Tensor | None) -> tf.Tensor:
        return tf.py_function(self._keep_failed_images, tf.nest.flatten(images)[:1], tf.bool)

    def _keep_failed_images(self, images: tf.Tensor) -> bool:
        self._failed_images = images.numpy()
        raise _NotFiniteError


class _NotFiniteError(Exception):
    """Ends a step; `Learner.fit` turns it into a `DivergenceError`."""


class TerminateOnDivergence(tf.keras.callbacks.Callback):
    """Ends `fit` with an error when the loss or a weight is not finite, for models that a `Learner` cannot train.

    The weights are restored to their values at the start of the epoch.

    Raises:
        UsageError: the model is not built when training starts.
        DivergenceError: after the step (with `steps_per_execution`, the steps) that produced a non-finite value.

    Example:
        >>> model.fit(x, y, callbacks=[kbnn.training.TerminateOnDivergence()])
    """

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        require_built(self)
        self._steps = 0
        # One compiled call for all weights: separate calls would take longer than the checks themselves.
        self._all_finite = tf.function(lambda: tf.reduce_all([_is_finite(w) for w in self.model.trainable_weights]))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = self._steps
        self._before = self.model.get_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._steps = self._began + batch + 1
        if bool(tf.math.is_finite((logs or {}).get("loss", 0.0))) and self._all_finite():
            return
        found = _origin(self.model)
        self.model.set_weights(self._before)
        remedy = "the weights were reset to the start of the epoch; train again with a lower learning rate"
        raise DivergenceError(self._steps, found, remedy)


def measures(classes: int) -> list[tf.keras.metrics.Metric]:
    """The accuracies that training and evaluation report: top-1, and top-5 if there are more than five classes."""
    found = [tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    if classes > FIVE:
        found.append(tf.keras.metrics.MeanMetricWrapper(is_among_first, name="top5"))
    return found


def is_among_first(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """1 for each image whose label is among the `FIVE` largest logits, else 0; of equal logits, the first ones count.

    Keras's metric counts all equal logits, so that a network with a constant output would reach 100 %.
    """
    label = _flat(labels)[:, tf.newaxis]
    own = tf.gather(logits, label, batch_dims=1)
    earlier = tf.range(logits.shape[-1], dtype=label.dtype) < label
    before = (logits > own) | (tf.equal(logits, own) & earlier)
    rank = tf.math.count_nonzero(before, -1, dtype=tf.int32)
    return tf.cast((rank < FIVE) & ~tf.math.is_nan(own[:, 0]), tf.float32)


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """-Σ q·log softmax(z) per image, q = (1 - ε)·[label] + ε/K over K classes."""
    if not smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=_flat(labels), logits=logits)
    classes = logits.shape[-1]
    targets = tf.one_hot(_flat(labels), classes, 1 - smoothing + smoothing / classes, smoothing / classes)
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def _flat(labels: tf.Tensor) -> tf.Tensor:
    """Labels `(B,)` as integers; in `train_on_batch` and in `fit` of arrays, Keras makes them `(B, 1)`."""
    labels = labels if labels.dtype.is_integer else tf.cast(labels, tf.int32)
    return tf.squeeze(labels, -1) if labels.shape.rank == 2 else labels


def soft_divergence(student: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
    """T²·KL(softmax(teacher/T), softmax(student/T)) per image, of logits `(B, K)`."""
    expected = tf.nn.log_softmax(tf.cast(teacher, tf.float32) / temperature)
    received = tf.nn.log_softmax(tf.cast(student, tf.float32) / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(expected) * (expected - received), -1)


def _check(
    network: tf.keras.Model, teacher: tf.keras.Model | None, label_smoothing: float, share: float, temperature: float
) -> None:
    if not (0 < share <= 1 and temperature > 0 and 0 <= label_smoothing < 1):
        raise UsageError(
            f"Learner: received share={share}, temperature={temperature}, label_smoothing={label_smoothing}; choose "
            f"0 < share <= 1, temperature > 0, 0 <= label_smoothing < 1"
        )
    if not network.inputs:
        raise UsageError(f"Learner: network '{network.name}' is subclassed or not built: pass a functional model")
    if teacher is not None and teacher.output_shape[-1] != network.output_shape[-1]:
        raise UsageError(
            f"Learner: the teacher does not fit: received {teacher.output_shape[-1]} classes, the network has "
            f"{network.output_shape[-1]}"
        )
    for role, model in (("network", network), ("teacher", teacher)):
        if model is not None and _ends_with_softmax(model):
            raise UsageError(
                f"Learner: the {role} must return logits: received '{model.name}', which ends with a softmax; leave "
                f"the softmax out"
            )


def _ends_with_softmax(model: tf.keras.Model) -> bool:
    """Whether a functional model returns probabilities; False for other models."""
    if not model.outputs or not hasattr(model.outputs[0], "_keras_history"):
        return False
    last = model.outputs[0]._keras_history.layer
    if isinstance(last, tf.keras.Model) and last is not model:
        return _ends_with_softmax(last)
    activation = getattr(last, "activation", None)
    return isinstance(last, tf.keras.layers.Softmax) or activation is tf.keras.activations.softmax


def require_built(callback: tf.keras.callbacks.Callback) -> None:
    """Raises UsageError if the callback's model has no variables yet, like a subclassed one before its first batch."""
    if not callback.model.built:
        raise UsageError(
            f"{type(callback).__name__} needs a model that is built: received '{callback.model.name}' without "
            f"variables, call it on a batch before fit"
        )


def first_non_finite(network: tf.keras.Model, images: tf.Tensor) -> str:
    """A phrase that names the layer where NaN or infinity first appeared.

    Gradients flow towards the input, so among layers with non-finite weights, the last one is the origin. Activations
    flow towards the output, so among layers with non-finite outputs, it is the first one.

    Args:
        network: a functional model.
        images: the batch on which the loss was not finite.
    """
    weights = _last_non_finite_weights(network)
    if weights is not None:
        return weights
    layers = [layer for layer in network.layers if not isinstance(layer, tf.keras.layers.InputLayer)]
    outputs = tf.keras.Model(network.inputs, [layer.output for layer in layers])(images, training=True)
    for layer, output in zip(layers, outputs, strict=True):
        if not all(bool(_is_finite(tensor)) for tensor in tf.nest.flatten(output)):
            return f"layer '{layer.name}' is the first whose output is not finite"
    for layer in layers:
        if not all(bool(_is_finite(loss)) for loss in layer.losses):
            return f"the penalty of layer '{layer.name}' is not finite"
    return f"all layers are finite, the logits reach {float(tf.reduce_max(tf.abs(outputs[-1]))):.3g}"


def _origin(network: tf.keras.Model) -> str:
    """A phrase that names the origin, from the weights alone, after the step has already been applied."""
    trained = [layer for layer in structure.flat_layers(network) if layer.trainable_weights]
    if not any(_has_finite_weights(layer) for layer in trained):
        return "the loss is not finite, and neither are the weights of any layer"
    return _last_non_finite_weights(network) or "the loss is not finite, the weights are"


def _last_non_finite_weights(network: tf.keras.Model) -> str | None:
    """A phrase that names the last layer with non-finite weights; None if there is none."""
    for layer in reversed(structure.flat_layers(network)):
        if not _has_finite_weights(layer):
            return f"the weights of layer '{layer.name}' are not finite"
    return None


def _has_finite_weights(layer: tf.keras.layers.Layer) -> bool:
    return all(bool(_is_finite(weight)) for weight in layer.trainable_weights)


def _is_finite(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.cast(tensor, tf.float32)))
