"""`Learner`: loss, penalty, metrics, teacher, and losses that are not finite."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from kbnn import methods, regularizers
from kbnn.errors import UsageError
from kbnn.layers import BinaryDense
from kbnn.training import DivergenceError, Learner, TerminateOnDivergence
from kbnn.training.learner import cross_entropy, first_non_finite, is_among_first, soft_divergence

X = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], np.float32)
Y = np.array([1, 3], np.int32)


def linear(classes: int = 4, penalty: float = 0.0) -> tf.keras.Model:
    inputs = tf.keras.Input((3,))
    regularizer = tf.keras.regularizers.L2(penalty) if penalty else None
    return tf.keras.Model(inputs, tf.keras.layers.Dense(classes, kernel_regularizer=regularizer, name="logits")(inputs))


def learner(network: tf.keras.Model, rate: float = 0.1, **kwargs: object) -> Learner:
    result = Learner(network, **kwargs)
    result.compile(tf.keras.optimizers.legacy.SGD(rate))
    return result


def log_softmax(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(z))


def test_one_step_is_that_of_softmax_cross_entropy_and_the_penalty():
    network = linear(penalty=0.5)
    kernel, bias = (weight.astype(np.float64) for weight in network.get_weights())
    logits = X @ kernel + bias
    d_logits = (softmax(logits) - np.eye(4)[Y]) / 2

    figures = learner(network).train_on_batch(X, Y, return_dict=True)

    assert figures["loss"] == pytest.approx(-log_softmax(logits)[[0, 1], Y].mean(), rel=1e-5)
    assert figures["penalty"] == pytest.approx(0.5 * (kernel**2).sum(), rel=1e-5)
    assert figures["accuracy"] == (logits.argmax(-1) == Y).mean()
    np.testing.assert_allclose(network.get_weights()[0], kernel - 0.1 * (X.T @ d_logits + kernel), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network.get_weights()[1], bias - 0.1 * d_logits.sum(0), rtol=1e-4, atol=1e-6)


def test_metrics_exist_before_the_first_step():
    assert [metric.name for metric in learner(linear()).metrics] == ["loss", "penalty", "accuracy"]
    assert [metric.name for metric in learner(linear(6)).metrics] == ["loss", "penalty", "accuracy", "top5"]


def test_layers_are_those_of_the_network():
    network = linear()
    assert learner(network).layers == network.layers
    assert [w.ref() for w in learner(network).trainable_weights] == [w.ref() for w in network.trainable_weights]


def test_top5_counts_labels_among_the_five_largest_logits():
    network = linear(7)
    images, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    # Per image, the rank of its label's logit from above, counted from 1: 5, 6, 1.
    logits = np.array([[3, 7, 6, 5, 4, 2, 1], [7, 2, 6, 5, 4, 3, 1], [1, 2, 7, 3, 4, 5, 6]], np.float32)
    network.set_weights([logits, np.zeros(7)])
    figures = learner(network).evaluate(images, labels, verbose=0, return_dict=True)
    assert figures["top5"] == pytest.approx(2 / 3)
    assert figures["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(10,), (10, 1)])
def test_top5_counts_the_first_of_equal_logits(shape: tuple[int, ...]):
    labels = np.arange(10).reshape(shape)
    constant = tf.zeros((10, 10))
    np.testing.assert_array_equal(is_among_first(tf.constant(labels), constant), [1] * 5 + [0] * 5)
    # Logit 9 is the largest, the others are equal: 9, 0, 1, 2 and 3 are the first.
    one = np.tile(np.eye(10, dtype=np.float32)[9], (10, 1))
    np.testing.assert_array_equal(is_among_first(tf.constant(labels), one), [1] * 4 + [0] * 5 + [1])
    np.testing.assert_array_equal(is_among_first(tf.constant(labels), constant / 0), np.zeros(10))


def test_sample_weights_scale_the_loss():
    network = linear()
    kernel, bias = network.get_weights()
    expected = -(log_softmax(X @ kernel + bias)[[0, 1], Y] * [2.0, 0.5]).mean()
    figures = learner(network).train_on_batch(X, Y, sample_weight=np.array([2.0, 0.5]), return_dict=True)
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_a_loss_that_is_not_finite_changes_no_weight_and_names_step_and_layer(steps_per_execution: int):
    network = linear()
    training = Learner(network)
    training.compile(tf.keras.optimizers.legacy.SGD(0.1), steps_per_execution=steps_per_execution)
    images = np.stack([X, X, np.full_like(X, np.inf), X])
    data = tf.data.Dataset.from_tensor_slices((images, np.stack([Y] * 4)))
    with pytest.raises(DivergenceError, match="diverged in step 3: layer 'logits' is the first whose") as caught:
        training.fit(data, verbose=0)
    assert caught.value.step == 3
    assert training.optimizer.iterations.numpy() == 2
    assert all(np.isfinite(weight).all() for weight in network.get_weights())


def test_weights_that_are_not_finite_end_the_epoch_although_signs_hide_them():
    """The sign of NaN is -1, so that the loss stays finite, but the gradient of the first layer is NaN."""
    inputs = tf.keras.Input((3,))
    x = tf.keras.layers.BatchNormalization()(tf.keras.layers.Dense(4, name="first")(inputs))
    x = BinaryDense(4, input_quantizer="tanh", kernel_quantizer="ste", name="second")(x)
    network = tf.keras.Model(inputs, tf.keras.layers.Dense(4, name="logits")(x))
    images = X.copy()
    images[0, 0] = np.nan
    seen: list[int] = []
    callback = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    training = learner(network)
    with pytest.raises(DivergenceError, match=r"in step 1: the weights of layer '.*' are not finite") as caught:
        training.fit(images, Y, batch_size=2, epochs=3, verbose=0, callbacks=callback)
    assert caught.value.step == 1
    with pytest.raises(DivergenceError, match=r"in step 1: the weights of layer '.*' are not finite"):
        training.fit(images, Y, 2, 3, 0, [callback])
    assert seen == []


def test_other_errors_of_a_step_are_not_reported_as_divergence():
    training = learner(linear())
    with pytest.raises(tf.errors.InvalidArgumentError):
        training.fit(X, np.array([1, 9]), verbose=0)


def test_evaluation_reports_the_same_figures_without_smoothing():
    network = linear()
    kernel, bias = network.get_weights()
    figures = learner(network, label_smoothing=0.3).evaluate(X, Y, verbose=0, return_dict=True)
    assert set(figures) == {"loss", "penalty", "accuracy"}
    assert figures["loss"] == pytest.approx(-log_softmax(X @ kernel + bias)[[0, 1], Y].mean(), rel=1e-5)


def test_label_smoothing_is_cross_entropy_with_a_spread_target():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 4, 5), rng.normal(size=(5, 4)).astype(np.float32)
    target = 0.9 * np.eye(4)[labels] + 0.1 / 4
    np.testing.assert_allclose(
        cross_entropy(tf.constant(labels), logits, 0.1), -(target * log_softmax(logits)).sum(-1), rtol=1e-5
    )
    np.testing.assert_allclose(
        cross_entropy(tf.constant(labels), logits), -log_softmax(logits)[np.arange(5), labels], rtol=1e-5
    )


def test_the_divergence_of_softened_outputs():
    student, teacher = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    expected, received = softmax(teacher / 3), softmax(student / 3)
    kl = (expected * np.log(expected / received)).sum(-1)
    np.testing.assert_allclose(soft_divergence(student, teacher, 3.0), 9 * kl, rtol=1e-5)
    np.testing.assert_allclose(soft_divergence(teacher, teacher, 3.0), 0, atol=1e-6)


def test_a_step_follows_labels_teacher_and_penalties():
    """Against the gradients: of cross-entropy softmax(z) - label, of T²·KL T·(softmax(z/T) - softmax(t/T))."""
    images, labels = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), np.array([0, 1, 3, 2])
    student, teacher, share, temperature = linear(penalty=0.25), linear(), 0.25, 3.0
    # Half of the penalty is the layer's, half the model's.
    student.add_loss(lambda: 0.25 * tf.reduce_sum(student.get_layer("logits").kernel ** 2))
    kernel, bias = (weight.astype(np.float64) for weight in student.get_weights())
    kept = teacher.get_weights()
    logits, targets = images @ kernel + bias, teacher(images).numpy()
    own = softmax(logits) - np.eye(4)[labels]
    taught = temperature * (softmax(logits / temperature) - softmax(targets / temperature))
    gradient = ((1 - share) * own + share * taught) / 4

    model = learner(student, teacher=teacher, share=share, temperature=temperature)
    figures = model.train_on_batch(images, labels, return_dict=True)

    np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * (images.T @ gradient + kernel), atol=1e-6)
    np.testing.assert_allclose(student.get_weights()[1], bias - 0.1 * gradient.sum(0), atol=1e-6)
    np.testing.assert_array_equal(teacher.get_weights()[0], kept[0])
    assert figures["penalty"] == pytest.approx(0.5 * (kernel**2).sum(), rel=1e-5)
    assert len(model.variables) - len(model.metrics) * 2 == len(student.variables)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Learner(linear(), teacher=linear(), share=0.0), r"received share=0\.0"),
        (lambda: Learner(linear(), teacher=linear(), temperature=-1.0), r"temperature=-1\.0"),
        (lambda: Learner(linear(), label_smoothing=1.0), r"label_smoothing=1\.0"),
        (lambda: Learner(linear(), teacher=linear(5)), "received 5 classes, the network has 4"),
        (lambda: Learner(tf.keras.Sequential([tf.keras.layers.Dense(4)])), "subclassed or not built"),
    ],
)
def test_mismatches_are_refused(make: Callable[[], object], message: str):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    "last",
    [
        lambda: tf.keras.layers.Dense(4, activation="softmax"),
        lambda: tf.keras.layers.Softmax(),
        lambda: tf.keras.layers.Activation("softmax"),
        lambda: tf.keras.Sequential([tf.keras.layers.Dense(4), tf.keras.layers.Softmax()]),
    ],
    ids=["dense", "layer", "activation", "nested"],
)
def test_probabilities_instead_of_logits_are_refused(last: Callable[[], tf.keras.layers.Layer]):
    """The softmax of probabilities would be almost uniform."""
    inputs = tf.keras.Input((3,))
    model = tf.keras.Model(inputs, last()(tf.keras.layers.Dense(4)(inputs)), name="shares")
    with pytest.raises(
        UsageError, match="the network must return logits: received 'shares', which ends with a softmax"
    ):
        Learner(model)
    with pytest.raises(UsageError, match="the teacher must return logits: received 'shares'"):
        Learner(linear(), teacher=model)


def binary() -> tf.keras.Model:
    """Eight trained weights: a real kernel and bias, a batch normalization's two, and four of a binary layer."""
    inputs = tf.keras.Input((4, 4, 2))
    x = methods.get("bnnplus_r2").convolution(inputs, 3, 3, name="conv")
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(4, name="logits")(tf.keras.layers.Flatten()(x)))


@pytest.mark.slow
def test_weight_decay_is_an_l2_penalty_that_leaves_binarized_layers_out():
    """Their learned scales and the β of their quantizers too (SiMaN, implementation details)."""
    network = binary()
    own = sum(float(loss) for loss in network.losses)
    regularizers.add_weight_decay(network, 0.1)
    real = [weight for name in ("bn", "logits") for weight in network.get_layer(name).trainable_weights]
    assert len(network.trainable_weights) == len(real) + 4
    expected = own + 0.05 * sum((weight.numpy() ** 2).sum() for weight in real)
    figures = learner(network, 0.0).train_on_batch(np.ones((2, 4, 4, 2), np.float32), Y, return_dict=True)
    assert figures["penalty"] == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def logarithm() -> tf.keras.Model:
    inputs = tf.keras.Input((3,))
    x = tf.keras.layers.Dense(4, name="first")(inputs)
    x = tf.keras.layers.Lambda(tf.math.log, name="logarithm")(tf.keras.layers.ReLU(name="relu")(x))
    x = tf.keras.layers.Dense(4, name="second", kernel_regularizer=tf.keras.regularizers.L2(1e30))(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(2, name="third")(x))


def weigh(network: tf.keras.Model, name: str, value: float) -> None:
    layer = network.get_layer(name)
    layer.set_weights([np.full_like(weight, value) for weight in layer.get_weights()])


def test_divergence_names_the_first_output_that_is_not_finite(logarithm: tf.keras.Model):
    weigh(logarithm, "first", -1.0)
    assert first_non_finite(logarithm, tf.ones([2, 3])) == "layer 'logarithm' is the first whose output is not finite"


def test_divergence_names_the_last_weights_because_gradients_flow_down(logarithm: tf.keras.Model):
    for name in ("first", "second"):
        weigh(logarithm, name, np.nan)
    assert first_non_finite(logarithm, tf.ones([2, 3])) == "the weights of layer 'second' are not finite"


def test_divergence_names_a_penalty(logarithm: tf.keras.Model):
    weigh(logarithm, "first", 1.0)
    weigh(logarithm, "second", 1e10)
    weigh(logarithm, "third", 1.0)
    assert first_non_finite(logarithm, tf.ones([2, 3])) == "the penalty of layer 'second' is not finite"


def test_divergence_names_large_logits(logarithm: tf.keras.Model):
    for name in ("first", "second"):
        weigh(logarithm, name, 1e-3)
    weigh(logarithm, "third", 2e8)
    assert first_non_finite(logarithm, tf.ones([2, 3])).startswith("all layers are finite, the logits reach ")


def fit_until_it_diverges(model: tf.keras.Model, y: np.ndarray) -> str:
    """The error message, after checking that the weights were reset."""
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(DivergenceError) as caught:
        model.fit(np.ones((8, 3)), y, batch_size=2, verbose=0, shuffle=False, callbacks=[TerminateOnDivergence()])
    for weight, after in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)
    return str(caught.value)


def test_model_fit_stops_when_gradients_are_not_finite():
    inputs = tf.keras.Input((3,))
    x = tf.keras.layers.Dense(4, name="first")(inputs)
    # Its gradient at 0 is not finite.
    x = tf.keras.layers.Lambda(lambda x: tf.sqrt(tf.abs(x - x)), name="root")(x)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2, name="second")(x))
    assert fit_until_it_diverges(model, np.ones((8, 2))).startswith(
        "training diverged in step 1: the weights of layer 'first' are not finite; the weights were reset to "
    )


def test_model_fit_stops_when_loss_and_weights_are_not_finite():
    labels = np.ones((8, 2))
    labels[4] = np.nan
    model = tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,)), tf.keras.layers.Dense(2)])
    assert fit_until_it_diverges(model, labels).startswith(
        "training diverged in step 3: the loss is not finite, and neither are the weights of any layer; "
    )
