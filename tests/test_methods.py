"""Methods by name: the parts of each, composition, and errors."""

import larq as lq
import numpy as np
import pytest
import reference
import tensorflow as tf

from kbnn import layers, methods, quantizers, regularizers
from kbnn.errors import UsageError

# Method -> input quantizer, kernel quantizer, scale, scale initializer, scale penalty.
TABLE = {
    "bnn": ("SteSign", "SteSign", None, "mean", None),
    "xnor": ("SteSign", "XNORSign", None, "mean", None),
    "dorefa": ("SteSign", "DoReFaSign", None, "mean", None),
    "bireal": ("ApproxSign", "MagnitudeAwareSign", None, "mean", None),
    "irnet": ("EDESign", "LibraSign", None, "mean", None),
    "siman": ("ApproxSign", "HalfHalf", "learned", "mean", None),
    "bnnplus_r1": ("SignSwish", "SignSwish", "learned", "median", "Manhattan"),
    "bnnplus_r2": ("SignSwish", "SignSwish", "learned", "mean", "Euclidean"),
    "react": ("ApproxSign", "MagnitudeAwareSign", None, "mean", None),
    "adabin": ("AdaptiveSign", "EqualizedSign", None, "mean", None),
    "presb": ("LeakySteSign", "MagnitudeAwareSign", None, "mean", None),
    "float": ("NoneType", "NoneType", None, "mean", None),
}


def network(name: str) -> tf.keras.Model:
    method = methods.get(name)
    inputs = tf.keras.Input((6, 6, 8))
    x = method.activation(method.convolution(inputs, 8, 3, name="conv"), name="act")
    return tf.keras.Model(inputs, method.dense(tf.keras.layers.Flatten()(x), 5, name="dense"))


def names_of(model: tf.keras.Model) -> list[str]:
    return [layer.name for layer in model.layers[1:] if layer.name != "flatten" and "flatten" not in layer.name]


def kind(value: object) -> str:
    return type(value).__name__


def test_the_table_is_complete():
    assert set(TABLE) == set(methods.names())


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_base_methods(name):
    model = network(name)
    for layer in (model.get_layer("conv"), model.get_layer("dense")):
        received = (layer.input_quantizer, layer.kernel_quantizer, layer.scale_regularizer)
        inputs, kernel, scale, start, penalty = TABLE[name]
        assert tuple(map(kind, received)) == (inputs, kernel, penalty or "NoneType")
        assert (layer.scale, layer.scale_initializer) == (scale, start)
        assert layer.kernel_regularizer is None
        assert (layer.kernel_constraint is not None) == (name == "bnn")
    assert methods.get(name).is_binary == (name != "float")
    assert methods.describe(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bireal", ["conv", "dense"]),
        ("adabin", ["conv", "act", "dense"]),
        ("irnet", ["conv", "act", "dense"]),
        ("react", ["conv_shift", "conv", "act", "dense_shift", "dense"]),
        ("xnor+bma", ["conv_median", "conv", "dense_median", "dense"]),
        ("react+bma", ["conv_median", "conv", "act", "dense_median", "dense"]),
        ("xnor+k", ["conv", "conv_magnitude", "dense", "dense_magnitude"]),
        ("float", ["conv_clip", "conv", "dense_clip", "dense"]),
        ("float+relu", ["conv_relu", "conv", "dense_relu", "dense"]),
        ("siman+code", ["conv_standardized", "conv", "act", "dense"]),
    ],
)
def test_layers_and_their_names(name, expected):
    assert names_of(network(name)) == expected


def test_penalties_have_the_papers_strength():
    assert float(methods.get("xnor+ml").kernel_regularizer.strength) == pytest.approx(1e-4)
    for name in ("bnnplus_r1", "bnnplus_r2"):
        assert float(methods.get(name).scale_regularizer.strength) == pytest.approx(5e-7)


def test_median_loss_adds_only_the_loss():
    plain, with_loss = network("xnor"), network("xnor+ml")
    assert names_of(plain) == names_of(with_loss)
    assert isinstance(with_loss.get_layer("conv").kernel_quantizer, quantizers.XNORSign)
    assert with_loss.get_layer("conv").kernel_regularizer is with_loss.get_layer("dense").kernel_regularizer
    assert (len(plain.losses), len(with_loss.losses)) == (0, 2)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("xnor+std", "mean_abs"),
        ("bireal+std", "mean_abs"),
        ("bnn+std", None),
        ("siman+std", "learned"),
        ("dorefa+std", "mean_abs"),
    ],
)
def test_standardized_kernels_keep_a_scale_on_the_output(name, scale):
    layer = network(name).get_layer("conv")
    assert isinstance(layer.kernel_quantizer, quantizers.StandardizedSign)
    assert layer.scale == scale
    assert layer.scale_scope == ("layer" if name == "dorefa+std" else "filter")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("irnet+std", r"method 'irnet' cannot take '\+std', .* its LibraSign gives kernels: leave '\+std' out"),
        ("adabin+std+bma", r"method 'adabin' cannot take '\+std', .* its EqualizedSign gives kernels"),
        ("siman+code+std", r"method 'siman\+std' cannot take '\+code': both replace the kernels of siman, choose one"),
    ],
)
def test_modifiers_that_would_drop_a_part_of_the_base_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        methods.get(name)


def test_a_registered_method_with_two_scales_cannot_take_standardized_kernels():
    twice = methods.Method(kernel_quantizer="magnitude_aware", scale="learned", name="twice", base="twice")
    with pytest.raises(UsageError, match=r"method 'twice' cannot take '\+std'"):
        methods._with_standardized_kernels(twice)


def test_the_authors_code_keeps_the_batch_median():
    assert methods.get("siman+bma+code").before == (methods._standardized_sample, methods._median)


def test_order_of_modifiers_does_not_matter():
    method = methods.get("xnor+bma+ml+std")
    assert method.name == "xnor+std+ml+bma"
    assert method.base == "xnor"


def test_each_layer_has_its_own_quantizers():
    model = network("bnnplus_r1")
    conv, dense = model.get_layer("conv"), model.get_layer("dense")
    assert len({id(q) for q in (conv.input_quantizer, conv.kernel_quantizer, dense.input_quantizer)}) == 3
    assert conv.scale_regularizer is dense.scale_regularizer


def test_fresh_methods_share_no_penalty():
    method = methods.get("bnnplus_r1+ml")
    fresh = method.fresh()
    assert fresh.name == method.name
    assert fresh.kernel_regularizer is not method.kernel_regularizer
    assert fresh.scale_regularizer is not method.scale_regularizer
    assert float(fresh.scale_regularizer.strength) == float(method.scale_regularizer.strength)


def test_a_method_takes_keras_s_regularizers():
    method = methods.Method(input_quantizer="ste", kernel_quantizer="xnor", kernel_regularizer="l2", base="mine")
    inputs = tf.keras.Input((6, 6, 8))
    model = tf.keras.Model(inputs, method.fresh().convolution(inputs, 8, 3, name="conv"))
    kernel = model.get_layer("conv").latent_kernel.numpy().astype(float)
    assert float(model.losses[0]) == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)
    assert method.penalties == []
    with pytest.raises(UsageError, match=r"cannot take '\+ml', which would replace its kernel_regularizer"):
        methods._MODIFIERS["ml"].change(method)


@pytest.mark.parametrize("source", ["weight_clip", lq.constraints.WeightClip(1.0), lq.constraints.WeightClip])
def test_each_layer_has_its_own_constraint(source):
    method = methods.Method(kernel_quantizer="ste", kernel_constraint=source)
    first, second = (method.layer_arguments()["kernel_constraint"] for _ in range(2))
    assert first is not second
    np.testing.assert_array_equal(first(tf.constant([-3.0, 0.5, 2.0])), [-1.0, 0.5, 1.0])


def test_a_fresh_method_keeps_the_stated_number_of_layers_and_forgets_the_counted_one():
    stated = methods.Method(kernel_regularizer=regularizers.MedianLoss(1e-3, layers=20)).fresh().kernel_regularizer
    assert (stated.layers, float(stated.strength)) == (20, pytest.approx(1e-3))
    counting = methods.get("xnor+ml")
    convolutions = [layers.BinaryConv2D(4, 3, **counting.layer_arguments()) for _ in range(3)]
    for convolution in convolutions:
        convolution.build((None, 6, 6, 4))
    assert counting.kernel_regularizer.layers == 3
    assert counting.fresh().kernel_regularizer.layers == 1
    assert methods.name_of(counting) == "xnor+ml"


def test_the_magnitude_of_activations_knows_no_dilation():
    inputs = tf.keras.Input((6, 6, 8))
    with pytest.raises(UsageError, match=r"conv: received dilation_rate=\(2, 2\)"):
        methods.get("xnor+k").convolution(inputs, 8, 3, name="conv", dilation_rate=2)
    assert methods.get("xnor").convolution(inputs, 8, 3, name="conv", dilation_rate=2).shape[1:] == (6, 6, 8)


def test_further_arguments_override_the_method():
    method = methods.get("bireal")
    inputs = tf.keras.Input((6, 6, 8))
    model = tf.keras.Model(inputs, method.convolution(inputs, 8, 3, name="conv", input_quantizer=None, groups=2))
    layer = model.get_layer("conv")
    assert layer.input_quantizer is None
    assert layer.groups == 2
    assert isinstance(layer, layers.BinaryConv2D)


def test_trainable_beta_and_penalty_reach_the_model():
    model = network("bnnplus_r2")
    leaves = [weight.name.rpartition("/")[2] for weight in model.trainable_weights]
    assert leaves.count("beta:0") == 4
    assert leaves.count("alpha:0") == 2
    assert len(model.losses) == 2
    assert isinstance(model.get_layer("conv").scale_regularizer, regularizers.Euclidean)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xnr", "unknown method: received 'xnr'; did you mean xnor"),
        ("bireal+mll", "unknown modifier of method bireal: received 'mll'; did you mean ml"),
        ("", "unknown method"),
        ("xnor+ml+ml", "repeats a modifier"),
        ("float+ml", "it has no binary layers"),
        ("bireal+relu", "it belongs to 'float'"),
        ("xnor+code", "it belongs to 'siman'"),
    ],
)
def test_invalid_arguments_are_explained(name, message):
    with pytest.raises(UsageError, match=message):
        methods.get(name)


def test_describes_modifiers_and_refuses_unknown_names():
    assert all(methods.describe(f"+{name}") for name in methods.modifiers())
    with pytest.raises(UsageError, match="unknown method"):
        methods.describe("+nothing")


def test_a_step_of_mlbma_s_algorithm_1():
    """A' = Act(Z·α + A), Z = sign(BMA(A))·sign((W - μ)/σ), the median loss, and XNOR-Net's gradient."""
    rng = np.random.default_rng(5)
    x, dy = rng.normal(size=(2, 16, 6)).astype(np.float32)
    w, strength = rng.normal(0, 0.7, (6, 6)).astype(np.float32), 0.3
    median, act = layers.BatchMedian(), layers.PReLU()
    binary = layers.BinaryDense(
        6,
        input_quantizer="ste",
        kernel_quantizer="standardized_xnor",
        scale="mean_abs",
        kernel_regularizer=regularizers.MedianLoss(strength),
    )
    binary.build((None, 6))
    binary.kernel.assign(w)
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = act(binary(median(inputs, training=True)) + inputs)
        loss = tf.reduce_sum(outputs * dy) + tf.add_n(binary.losses)
    dx, dw = tape.gradient(loss, [inputs, binary.kernel])

    x, dy, w = (value.astype(np.float64) for value in (x, dy, w))
    centred = reference.batch_median(x, 1.0, 0.0)[0]
    alpha, signs = np.abs(w).mean(0), reference.sign(w - w.mean(0))
    added = reference.sign(centred) @ (alpha * signs) + x
    np.testing.assert_allclose(outputs, np.where(added > 0, added, 0.25 * added), 1e-5, 1e-5)
    dz = dy * np.where(added > 0, 1, 0.25)
    rule = 1 / 6 + alpha * reference.ste(w)
    positive, negative = w > 0, w < 0
    imbalance = w.mean() - (w[positive].mean() + w[negative].mean()) / 2
    share = 1 / w.size - positive / (2 * positive.sum()) - negative / (2 * negative.sum())
    expected = reference.sign(centred).T @ dz * rule + strength * np.sign(imbalance) * share
    np.testing.assert_allclose(dw, expected, 1e-4, 1e-5)
    through = reference.batch_median(x, 1.0, 0.0, dz @ (alpha * signs).T * reference.ste(centred))[1]
    np.testing.assert_allclose(dx, through + dz, 1e-4, 1e-5)
