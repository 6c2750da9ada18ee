"""Penalties against manual calculations, alone and in models."""

import numpy as np
import pytest
import tensorflow as tf

import kbnn
from kbnn import quantizers, regularizers
from kbnn.errors import UsageError
from kbnn.layers import BinaryConv2D, BinaryDense
from kbnn.precision import precision


@pytest.mark.parametrize(
    ("weights", "expected"), [([1, 2, -1, -1], 0), ([3, -1, -1], 2 / 3), ([1, 2, 3], 1), ([0, 0], 0), ([-4, -2], 1.5)]
)
def test_median_loss_by_hand(weights, expected):
    assert float(regularizers.median_loss(tf.constant(weights, tf.float32))) == pytest.approx(expected, abs=1e-7)


def test_median_loss_equals_the_papers_equation_10():
    w = np.random.default_rng(0).normal(0.2, 1, (3, 3, 4, 8)).astype(np.float32)
    positive, negative = w[w > 0].astype(np.float64), w[w < 0].astype(np.float64)
    expected = abs((positive.size - negative.size) / (2 * w.size) * (positive.mean() - negative.mean()))
    assert float(regularizers.median_loss(tf.constant(w))) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("unit", [1e37, 1e-30])
def test_median_loss_of_huge_and_tiny_weights(unit: float):
    w = np.random.default_rng(1).normal(0.2, 1, (3, 3, 16, 16)) * unit
    expected = abs(w.mean() - (w[w > 0].mean() + w[w < 0].mean()) / 2)
    assert float(regularizers.median_loss(tf.constant(w, tf.float32))) == pytest.approx(expected, rel=2e-5)


def test_median_loss_gradient():
    w = np.array([3.0, 2.0, -1.0, 0.0], np.float32)
    variable = tf.Variable(w)
    with tf.GradientTape() as tape:
        loss = regularizers.median_loss(variable)
    # 1 - (5/2 - 1)/2 is positive: each gradient is 1/n minus half of its side's share; zeros belong to no side.
    np.testing.assert_allclose(tape.gradient(loss, variable), [0, 0, 1 / 4 - 1 / 2, 1 / 4], atol=1e-7)


def test_manhattan_and_euclidean_by_hand():
    w, alpha = tf.constant([1, -0.5, 0]), tf.constant(0.5)
    assert float(regularizers.manhattan(w, alpha)) == pytest.approx(1.0)
    assert float(regularizers.euclidean(w, alpha)) == pytest.approx(0.5)


@pytest.mark.parametrize("per_filter", [True, False])
def test_gradients_flow_to_alpha_and_to_the_weights(per_filter):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    alpha = rng.uniform(0.1, 1, 4 if per_filter else ()).astype(np.float32)
    gap = alpha - np.abs(w)
    sum_to_alpha = (lambda x: x.sum((0, 1, 2))) if per_filter else np.sum
    for penalty, d_gap in ((regularizers.manhattan, np.sign(gap)), (regularizers.euclidean, 2 * gap)):
        variables = tf.Variable(w), tf.Variable(alpha)
        with tf.GradientTape() as tape:
            loss = penalty(*variables)
        dw, dalpha = tape.gradient(loss, variables)
        np.testing.assert_allclose(dw, -d_gap * np.sign(w), 1e-5)
        np.testing.assert_allclose(dalpha, sum_to_alpha(d_gap), 1e-5, 1e-5)


def expected_median_loss(model, strength=1e-4):
    """λ/L·Σ over the 1-bit layers of the model, by NumPy."""
    losses = [
        float(regularizers.median_loss(tf.constant(layer.latent_kernel.numpy())))
        for layer in model._flatten_layers()
        if isinstance(layer, BinaryConv2D | BinaryDense)
    ]
    return strength * np.mean(losses), len(losses)


def mixed_model(penalty):
    """Real layers, 1-bit convolutions, one of which is used twice, and a 1-bit dense layer."""
    binary = {"kernel_quantizer": "ste_sign", "input_quantizer": "ste_sign", "kernel_regularizer": penalty}
    inputs = tf.keras.Input((8, 8, 4))
    x = tf.keras.layers.Conv2D(8, 3)(inputs)
    twice = BinaryConv2D(8, 3, **binary)
    x = twice(twice(x))
    x = BinaryConv2D(6, 1, **binary)(x)
    x = tf.keras.layers.Flatten()(x)
    x = BinaryDense(5, **binary)(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(3)(x))


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        penalty = regularizers.MedianLoss(1e-4)
        self.first = BinaryConv2D(8, 3, kernel_quantizer="ste_sign", kernel_regularizer=penalty)
        self.second = BinaryConv2D(8, 3, kernel_quantizer="ste_sign", kernel_regularizer=penalty)
        self.real = tf.keras.layers.Conv2D(8, 3)

    def call(self, x):
        return self.real(self.second(self.first(x)))


def test_median_loss_averages_over_all_binarized_layers():
    model = mixed_model(regularizers.MedianLoss(1e-4))
    expected, count = expected_median_loss(model)
    assert count == 3
    assert len(model.losses) == 3
    assert float(tf.add_n(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_median_loss_averages_in_a_subclassed_model():
    model = Subclassed()
    model(tf.zeros((1, 8, 8, 4)))
    assert float(tf.add_n(model.losses)) == pytest.approx(expected_median_loss(model)[0], rel=1e-5)


def test_median_loss_of_a_clone_averages_over_the_clones_layers():
    model = mixed_model(regularizers.MedianLoss(1e-4))
    clone = tf.keras.models.clone_model(model)
    assert float(tf.add_n(clone.losses)) == pytest.approx(expected_median_loss(clone)[0], rel=1e-5)
    assert float(tf.add_n(model.losses)) == pytest.approx(expected_median_loss(model)[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.keras", "saved"])
def test_median_loss_of_a_loaded_model(name, tmp_path):
    model = mixed_model(regularizers.MedianLoss(1e-4))
    model.save(tmp_path / name)
    loaded = tf.keras.models.load_model(tmp_path / name)
    assert float(tf.add_n(loaded.losses)) == pytest.approx(expected_median_loss(model)[0], rel=1e-5)


@pytest.mark.slow
def test_every_network_of_a_method_averages_over_its_own_layers():
    method = kbnn.methods.get("xnor+ml")
    for name in ("tiny", "vgg_small", "tiny"):
        model = kbnn.models.build(name, method=method, input_shape=(32, 32, 3), width=0.25)
        assert float(tf.add_n(model.losses)) == pytest.approx(expected_median_loss(model)[0], rel=1e-5)


def test_median_loss_of_larq_layers_takes_their_number():
    penalty = regularizers.MedianLoss(1e-4, layers=4)
    layer = tf.keras.layers.Conv2D(3, 3, kernel_regularizer=penalty)
    layer.build((None, 8, 8, 3))
    assert float(layer.losses[0]) == pytest.approx(1e-4 / 4 * float(regularizers.median_loss(layer.kernel)), rel=1e-5)


def test_strength_follows_a_schedule_while_a_compiled_step_runs():
    penalty = regularizers.MedianLoss(1e-4)
    model = mixed_model(penalty)
    total = tf.function(lambda: tf.add_n(model.losses))
    before = float(total())
    penalty.strength.assign(1e-2)
    assert float(total()) == pytest.approx(100 * before, rel=1e-5)


def test_strength_survives_a_checkpoint(tmp_path):
    model = mixed_model(regularizers.MedianLoss(1e-4))
    model.layers[2].kernel_regularizer.strength.assign(0.5)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    again = mixed_model(regularizers.MedianLoss(1e-4))
    tf.train.Checkpoint(model=again).read(path).assert_existing_objects_matched()
    assert float(again.layers[2].kernel_regularizer.strength) == 0.5
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


@pytest.mark.parametrize("penalty", [regularizers.Manhattan(1e-3), regularizers.Euclidean(1e-3)])
def test_scale_penalties_show_up_in_the_models_losses(penalty):
    layer = BinaryConv2D(4, 3, kernel_quantizer="ste_sign", scale="learned", scale_regularizer=penalty)
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 3)), layer])
    function = regularizers.manhattan if isinstance(penalty, regularizers.Manhattan) else regularizers.euclidean
    assert len(model.losses) == 1
    assert float(model.losses[0]) == pytest.approx(1e-3 * float(function(layer.latent_kernel, layer.alpha)), rel=1e-5)
    clone = tf.keras.models.clone_model(model)
    assert len(clone.losses) == 1


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_losses_are_float32_under_mixed_precision(policy):
    with precision(policy):
        for method in ("xnor+ml", "bnnplus_r1", "bnnplus_r2"):
            model = kbnn.models.build("tiny", method=method)
            assert {loss.dtype for loss in model.losses} == {tf.float32}


def decay_model():
    return tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 4)),
            tf.keras.layers.Conv2D(8, 3, use_bias=False),
            BinaryConv2D(8, 3, kernel_quantizer=quantizers.XNORSign(), scale="learned"),
        ]
    )


@pytest.mark.parametrize("make", [tf.keras.optimizers.AdamW, tf.keras.optimizers.SGD])
def test_decoupled_decay_leaves_binarized_kernels_out(make):
    model = decay_model()
    optimizer = make(learning_rate=0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(regularizers.binarized_kernels(model))
    before = [weight.numpy() for weight in model.trainable_weights]
    optimizer.apply_gradients([(tf.zeros_like(weight), weight) for weight in model.trainable_weights])
    kept = [np.allclose(a, b.numpy()) for a, b in zip(before, model.trainable_weights, strict=True)]
    assert kept == [False, True, False]


@pytest.mark.parametrize("nested", [False, True])
def test_l2_skips_binarized_layers_and_their_scales(nested):
    model = decay_model()
    outer = tf.keras.Sequential([tf.keras.Input((8, 8, 4)), model]) if nested else model
    regularizers.add_weight_decay(outer, 0.5)
    with tf.GradientTape() as tape:
        loss = tf.add_n(outer.losses)
    gradients = tape.gradient(loss, outer.trainable_weights)
    assert gradients[1] is gradients[2] is None
    np.testing.assert_allclose(gradients[0], 0.5 * model.layers[0].kernel.numpy(), 1e-6)


def test_l2_skips_the_excluded_layers():
    model = decay_model()
    regularizers.add_weight_decay(model, 0.5, exclude=regularizers.binarized_kernels(model))
    with tf.GradientTape() as tape:
        loss = tf.add_n(model.losses)
    gradients = tape.gradient(loss, model.trainable_weights)
    assert gradients[1] is None
    for gradient, weight in ((gradients[0], model.layers[0].kernel), (gradients[2], model.layers[1].alpha)):
        np.testing.assert_allclose(gradient, 0.5 * weight.numpy(), 1e-6)


def test_l2_includes_everything_if_nothing_is_excluded():
    model = decay_model()
    regularizers.add_weight_decay(model, 0.5, exclude=())
    with tf.GradientTape() as tape:
        loss = tf.add_n(model.losses)
    assert None not in tape.gradient(loss, model.trainable_weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: regularizers.MedianLoss(-1.0), "strength must not be negative, received -1.0"),
        (lambda: regularizers.Manhattan(float("nan")), "strength must not be negative"),
        (lambda: regularizers.add_weight_decay(decay_model(), -1.0), "weight_decay must not be negative"),
        (lambda: regularizers.MedianLoss(1e-4, layers=0), "layers must be at least 1"),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make()
