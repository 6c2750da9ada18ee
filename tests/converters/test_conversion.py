"""`convert`: models that become a file, and models that are refused with each layer, the reason and the fix."""

import sys

import attacks
import larq as lq
import numpy as np
import pytest
import sample_networks
import tensorflow as tf

import kbnn
from kbnn.converters import ConversionError, conversion, convert
from kbnn.converters.graph.lifting import lift
from kbnn.converters.graph.operations import Opaque
from kbnn.converters.graph.operations.replacements import called
from kbnn.converters.graph.trace import Reference
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.verify.verification import inputs_by_name
from kbnn.errors import KbnnError, UsageError
from kbnn.precision import precision

layers = tf.keras.layers


def test_an_artifact_is_audited_and_verified(bireal, tmp_path):
    artifact = convert(bireal, tmp_path / "model.tflite", sample_networks.images(bireal))
    assert (tmp_path / "model.tflite").stat().st_size == artifact.size_bytes
    assert len(artifact.audit.binary_convolutions) == 2
    assert artifact.audit.silent_fallbacks == []
    assert artifact.parity.passed
    assert "2 binary convolutions" in str(artifact)


def test_a_bireal_block_is_three_operators(bireal_file):
    names = [operator.name for operator in bireal_file.operators]
    assert names[:4] == ["CONV_2D", "LceQuantize", "LceBconv2d", "ADD"]


@pytest.mark.slow
def test_convolutions_without_shortcuts_write_bitpacked_output(tmp_path):
    model = sample_networks.plain()
    artifact = convert(model, tmp_path / "model.tflite")
    assert [c.output for c in artifact.audit.binary_convolutions] == ["bitpacked", "bitpacked", "float32"]


def test_learned_slopes_after_dense_layers(tmp_path):
    vector = layers.Input((32,), name="vector")
    x = kbnn.layers.PReLU()(layers.Dense(32)(vector))
    x = kbnn.layers.BinaryDense(32, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    model = sample_networks.shaken(tf.keras.Model(vector, kbnn.layers.RPReLU()(x)))
    artifact = convert(model, tmp_path / "model.tflite")
    assert artifact.parity.passed
    assert artifact.audit.operators["PRELU"] == 2


def test_operators_that_the_runtime_lacks_are_refused_by_name():
    """TensorFlow 2.21 exports exact GELUs as `Erfc`."""
    writer = attacks.Writer()
    tensors = [writer.tensor([1, 4]), writer.tensor([1, 4])]
    data = writer.file(tensors, [writer.operator([0], [1])], [writer.custom("Erfc")], outputs=(1,))
    with pytest.raises(ConversionError, match=r"needs the operator 'Erfc'.*approximate=True"):
        conversion._check_operators(flatbuffer.parse(data), ())


def test_parts_of_keras_run_on_any_number_of_images_without_warnings(caplog):
    """TensorFlow warns, with the whole graph, when one function is traced for several shapes."""
    model = sample_networks.single(
        lambda x: sample_networks.convolution(layers.Cropping2D(1)(x), 32, "conv"), (6, 6, 32)
    )
    graph = lift(Reference(model))
    assert any(isinstance(node.operation, Opaque) for node in graph)
    tf.get_logger().addHandler(caplog.handler)
    try:
        for size in range(1, 10):
            graph.run({"image": tf.ones((size, 6, 6, 32))})
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert caplog.text == ""


def test_inputs_and_outputs_have_the_names_of_keras(bireal_file):
    assert list(bireal_file.inputs) == ["image"]
    assert list(bireal_file.outputs) == ["logits"]


def test_several_inputs_and_outputs_are_matched_by_name(tmp_path):
    first, second = tf.keras.Input((6, 6, 32), name="first"), tf.keras.Input((6, 6, 64), name="second")
    a = layers.GlobalAveragePooling2D(name="a")(sample_networks.convolution(first, 32, "conv_a"))
    b = layers.GlobalAveragePooling2D(name="b")(sample_networks.convolution(second, 32, "conv_b"))
    model = sample_networks.randomized(tf.keras.Model([second, first], [b, a]))
    artifact = convert(model, tmp_path / "model.tflite")
    assert artifact.audit.inputs == {"first": (1, 6, 6, 32), "second": (1, 6, 6, 64)}
    assert set(artifact.audit.outputs) == {"a", "b"}


def test_a_subclassed_model(tmp_path):
    class Network(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.convolution = lq.layers.QuantConv2D(32, 3, name="inner", **sample_networks.BINARY)
            self.pool = layers.GlobalAveragePooling2D()

        def call(self, inputs):
            return self.pool(self.convolution(inputs))

    model = Network()
    with pytest.raises(ConversionError, match="no known input: call it on one batch"):
        convert(model, tmp_path / "model.tflite")
    model(np.zeros((1, 6, 6, 32), np.float32))
    assert len(convert(model, tmp_path / "model.tflite").audit.binary_convolutions) == 1


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_becomes_float32(policy, tmp_path):
    with precision(policy):
        model = sample_networks.bireal(size=6)
    artifact = convert(model, tmp_path / "model.tflite")
    assert artifact.audit.outputs == {"logits": (1, 10)}
    assert artifact.parity.passed


def per_input_channel(kernel):
    return lq.math.sign(kernel) * tf.reduce_mean(tf.abs(kernel), axis=[0, 1, 3], keepdims=True)


def half(x):
    return tf.where(x >= 0, 1.0, -0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_quantizer": half}, r"its input is not a sign \(it holds -0.5\)"),
        ({"input_quantizer": lq.quantizers.DoReFa(k_bit=1)}, "its input is binarized to 0 and 1"),
        ({"input_quantizer": tf.sign}, "does not recognize how its input is binarized"),
        ({"kernel_quantizer": per_input_channel}, "not ±s with one s per filter"),
        ({"pad_values": 0.5}, "it pads with 0.5: use pad_values=1.0"),
    ],
    ids=["other values", "zero and one", "tf.sign", "scale per input channel", "padding"],
)
def test_each_reason_is_named_and_no_file_is_left(changes, reason, tmp_path):
    layer = lq.layers.QuantConv2D(64, 3, name="culprit", **{**sample_networks.BINARY, **changes})
    with pytest.raises(ConversionError, match=f"1 of 1 1-bit layers cannot be bitpacked: 'culprit': .*{reason}"):
        convert(sample_networks.single(layer), tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"groups": 4}, {"pad_values": -1.0}, {"pad_values": 0.0}, {"padding": "valid"}, {"dilation_rate": 2}]
)
def test_layers_that_can_be_rewritten_exactly_are_converted(changes, tmp_path):
    layer = lq.layers.QuantConv2D(64, 3, **{**sample_networks.BINARY, **changes})
    artifact = convert(sample_networks.single(layer), tmp_path / "model.tflite")
    assert artifact.audit.float_convolutions == []
    assert artifact.parity.kernels[0].differing == 0


@pytest.mark.slow
def test_an_untrained_network(tmp_path):
    """Untrained batch normalizations do not shift, so that the converter finds no bias."""
    assert convert(kbnn.models.build("tiny"), tmp_path / "model.tflite").parity.passed


@pytest.mark.slow
@pytest.mark.parametrize(("size", "kernel"), [((1, 1), 3), ((2, 6), 3), ((6, 2), 3), ((4, 4), 5)])
def test_zero_padding_of_images_smaller_than_the_kernel_is_refused(size, kernel, tmp_path):
    """LCE's optimized kernels compute something else; only its reference kernel is right."""
    changes = {"pad_values": 0.0, "kernel_quantizer": "ste_sign"}
    layer = lq.layers.QuantConv2D(32, kernel, name="culprit", **{**sample_networks.BINARY, **changes})
    model = sample_networks.single(layer, (*size, 32))
    reason = (
        f"'culprit': it pads maps of {size[0]}x{size[1]} with zeros for a {kernel}x{kernel} kernel.*: use pad_values"
    )
    with pytest.raises(ConversionError, match=reason):
        convert(model, tmp_path / "model.tflite")
    runs = {run.kernel: run for run in sample_networks.parity(model, sample_networks.raw(model)).runs}
    assert runs["reference"].max_abs_difference == 0
    assert min(runs[name].max_abs_difference for name in ("default", "indirect")) > 1
    smallest = sample_networks.single(layer, (kernel, kernel, 32))
    assert convert(smallest, tmp_path / "model.tflite").parity.passed


@pytest.mark.parametrize("weight", [1e-9, 0.0])
def test_a_network_with_a_dead_filter_is_converted(weight, tmp_path):
    layer = lq.layers.QuantConv2D(64, 3, **sample_networks.BINARY)
    model = sample_networks.single(layer)
    kernel = layer.get_weights()[0]
    kernel[..., 7] = weight
    layer.set_weights([kernel])
    assert len(convert(model, tmp_path / "model.tflite").audit.binary_convolutions) == 1


@pytest.mark.slow
def test_dense_layers_become_convolutions_over_one_pixel(tmp_path):
    image = tf.keras.Input((2, 2, 16), name="image")
    x = layers.Flatten()(image)
    for k in range(2):
        x = lq.layers.QuantDense(
            40, input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign", name=f"dense{k}", use_bias=True
        )(x)
        x = layers.BatchNormalization(name=f"bn{k}")(x)
    artifact = convert(sample_networks.randomized(tf.keras.Model(image, x)), tmp_path / "model.tflite")
    assert [c.kernel for c in artifact.audit.binary_convolutions] == [(1, 1, 64, 40), (1, 1, 40, 40)]
    assert artifact.audit.float_convolutions == []


def test_dense_layers_over_several_positions_are_refused(tmp_path):
    image = tf.keras.Input((4, 32), name="image")
    layer = lq.layers.QuantDense(8, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="culprit")
    with pytest.raises(ConversionError, match="'culprit': LCE has no binary dense operator: use a 1x1 "):
        convert(tf.keras.Model(image, layer(image)), tmp_path / "model.tflite")


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (1, 1, 6, 1)], ids=["height", "width"])
def test_constants_that_vary_over_the_image_are_not_folded_into_a_binary_convolution(shape, tmp_path):
    """LCE would use their first value for all positions."""
    constant = np.linspace(-200, 200, 6, dtype=np.float32).reshape(shape)
    image = tf.keras.Input((6, 6, 32), name="image")
    x = sample_networks.convolution(image, 32, "first")
    x = layers.Lambda(lambda x: x + constant, name="varying")(x)
    x = sample_networks.convolution(x, 32, "second")
    artifact = convert(sample_networks.randomized(tf.keras.Model(image, x)), tmp_path / "model.tflite")
    assert len(artifact.audit.binary_convolutions) == 2
    assert artifact.audit.operators["MAXIMUM"] == 1


def test_a_layer_without_a_binary_operator_is_refused(tmp_path):
    layer = lq.layers.QuantDepthwiseConv2D(
        3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", name="culprit"
    )
    with pytest.raises(ConversionError, match="'culprit': LCE has no binary DepthwiseConv2dNative"):
        convert(sample_networks.single(layer), tmp_path / "model.tflite")


@pytest.mark.slow
def test_a_layer_that_may_stay_float(tmp_path):
    image = tf.keras.Input((6, 6, 32), name="image")
    x = sample_networks.convolution(image, 32, "packed")
    x = sample_networks.convolution(x, 32, "floating", input_quantizer=half)
    model = sample_networks.randomized(tf.keras.Model(image, x))
    with pytest.raises(ConversionError, match="1 of 2 1-bit layers"):
        convert(model, tmp_path / "model.tflite")
    with pytest.raises(UsageError, match="unknown 1-bit layer: received 'floatin'; did you mean floating"):
        convert(model, tmp_path / "model.tflite", allow_float=["floatin"])
    artifact = convert(model, tmp_path / "model.tflite", allow_float=["floating"])
    assert [c.name for c in artifact.audit.binary_convolutions] == ["packed"]
    assert [c.name for c in artifact.audit.float_convolutions] == ["floating"]
    assert [kernel.name for kernel in artifact.parity.kernels] == ["packed"]


def test_a_binary_kernel_on_a_real_input_is_refused_except_in_the_first_layer(tmp_path):
    image = tf.keras.Input((6, 6, 3), name="image")
    real = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    x = lq.layers.QuantConv2D(32, 3, name="first", **real)(image)
    x = sample_networks.convolution(x, 32, "second")
    first = tf.keras.Model(image, x)
    assert len(convert(first, tmp_path / "first.tflite").audit.float_convolutions) == 1
    hidden = tf.keras.Model(image, lq.layers.QuantConv2D(8, 3, name="third", **real)(x))
    with pytest.raises(ConversionError, match="'third': its input is not a sign"):
        convert(hidden, tmp_path / "hidden.tflite")


def test_a_model_without_a_binary_layer(tmp_path):
    model = sample_networks.single(layers.Conv2D(4, 3))
    with pytest.raises(ConversionError, match=r"model 'single' has no 1-bit layer"):
        convert(model, tmp_path / "model.tflite")


def test_an_unknown_height(tmp_path):
    layer = lq.layers.QuantConv2D(32, 3, **sample_networks.BINARY)
    with pytest.raises(ConversionError, match=r"input 'image' .* unknown size: received \(None, None, 8, 32\)"):
        convert(sample_networks.single(layer, (None, 8, 32)), tmp_path / "model.tflite")


def test_a_path_that_cannot_be_written(bireal):
    with pytest.raises(KbnnError, match=r"cannot write '/proc/kbnn/model\.tflite'"):
        kbnn.converters.convert(bireal, "/proc/kbnn/model.tflite")


@pytest.mark.slow
def test_the_sign_of_a_shifted_sign_is_not_mistaken_for_a_sign(tmp_path):
    """`sign(sign(x) + 2)` is +1 everywhere, but LCE ignores the constant and would compute sign(x)."""
    image = tf.keras.Input((6, 6, 32), name="image")
    x = layers.Lambda(lambda x: tf.sign(tf.sign(x) + 2.0), name="ones")(image)
    x = lq.layers.QuantConv2D(32, 3, name="conv", **{**sample_networks.BINARY, "input_quantizer": None})(x)
    x = sample_networks.convolution(x, 32, "next")
    model = sample_networks.randomized(tf.keras.Model(image, layers.GlobalAveragePooling2D()(x)))
    artifact = convert(model, tmp_path / "model.tflite")
    assert artifact.parity.max_abs_difference < 1e-5
    assert [c.name for c in artifact.audit.binary_convolutions] == ["next"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "guard", "network"),
    [
        ("kbnn.converters.graph.slices", "_is_sign_of_a_shifted_sign", "ternary"),
        ("kbnn.converters.graph.slices", "_varies", "map"),
        ("kbnn.converters.conversion", "miscomputed", "padded"),
    ],
)
def test_what_lce_miscomputes_is_caught_without_its_guard_too(module, guard, network, tmp_path, monkeypatch):
    image = tf.keras.Input((2, 6, 32) if network == "padded" else (6, 6, 32), name="image")
    first = {**sample_networks.BINARY, "kernel_quantizer": "ste_sign"}
    if network == "ternary":
        first["input_quantizer"] = lq.quantizers.SteTern()
    if network == "padded":
        first["pad_values"] = 0.0
    x = lq.layers.QuantConv2D(32, 3, name="first", **first)(sample_networks.convolution(image, 32, "before"))
    if network == "map":
        x = layers.Lambda(lambda x: x + np.linspace(-200, 200, 6, dtype=np.float32).reshape(6, 1, 1))(x)
    x = sample_networks.convolution(x, 32, "after")
    model = sample_networks.randomized(tf.keras.Model(image, x))
    path = tmp_path / "model.tflite"
    if network != "padded":
        assert convert(model, path).parity.passed
    monkeypatch.setattr(sys.modules[module], guard, lambda *_: None)
    with pytest.raises(ConversionError, match=r"would not compute what Keras computes|cannot be bitpacked"):
        convert(model, path)


def test_sums_that_are_exactly_zero_are_named_where_they_move_the_outputs(tmp_path):
    """A black image in a network as it is built; batch normalization does not shift its sums."""
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}
    image = tf.keras.Input((8, 8, 32), name="image")
    x = lq.layers.QuantConv2D(32, 3, padding="same", use_bias=False, name="first", **quantizers)(image)
    x = layers.BatchNormalization(scale=False)(x)
    x = lq.layers.QuantConv2D(32, 3, padding="same", use_bias=False, name="second", **quantizers)(x)
    x = layers.Dense(5)(layers.Flatten()(layers.BatchNormalization(scale=False)(x)))
    reason = (
        r"the outputs of the default(?: and indirect)? kernels? differ from Keras's by .*LCE's optimized kernels round "
        r"sums that are exactly 0 in layers padded with zeros \('first', 'second'\): use pad_values=1\.0, or train the"
    )
    with pytest.raises(ConversionError, match=reason):
        convert(tf.keras.Model(image, x), tmp_path / "model.tflite", np.zeros((8, 8, 8, 32), np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_integer_images_before_augmentation_and_padding(tmp_path):
    image = layers.Input((6, 6, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255)(layers.Dropout(0.1)(layers.RandomFlip()(image)))
    x = sample_networks.convolution(layers.Conv2D(32, 3)(x), 32, "conv")
    model = sample_networks.randomized(tf.keras.Model(image, layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
    artifact = convert(model, tmp_path / "model.tflite", images)
    assert len(artifact.audit.binary_convolutions) == 1


def test_every_augmentation_layer_of_keras_converts(tmp_path):
    """All do nothing at inference, except that RandomCrop resizes the largest centre that has its shape."""
    image = layers.Input((12, 16, 3), name="image")
    augmentation = [
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomZoom(0.1),
        layers.RandomContrast(0.1),
        layers.RandomBrightness(0.1),
        layers.RandomHeight(0.1),
        layers.RandomWidth(0.1),
        layers.RandomCrop(6, 4),
    ]
    names = {name for name in dir(layers) if name.startswith("Random") and isinstance(getattr(layers, name), type)}
    assert {type(layer).__name__ for layer in augmentation} | {"RandomFourierFeatures"} >= names
    x = image
    for layer in augmentation:
        x = layer(x)
    cropped = tf.keras.Model(image, x)
    x = sample_networks.convolution(layers.Conv2D(32, 3)(x), 32, "conv")
    model = sample_networks.randomized(tf.keras.Model(image, layers.GlobalAveragePooling2D()(x)))
    images = sample_networks.images(model)
    artifact = convert(model, tmp_path / "model.tflite", images)
    assert artifact.parity.passed
    operators = artifact.audit.operators
    assert (operators["SLICE"], operators["RESIZE_BILINEAR"], operators["LceBconv2d"]) == (1, 1, 1)
    # Of 12 x 16 pixels, the middle 12 x 8 has the ratio 6 to 4.
    np.testing.assert_allclose(cropped(images, training=False), tf.image.resize(images[:, :, 4:12], (6, 4)), atol=1e-6)


def test_layers_that_keras_cannot_call_one_by_one_are_refused(tmp_path):
    class Network(tf.keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.convolution = lq.layers.QuantConv2D(32, 3, name="inner", **sample_networks.BINARY)

        @tf.function
        def features(self, x):
            return self.convolution(x)

        def call(self, x):
            return tf.reduce_mean(self.features(x), [1, 2])

    model = Network()
    model(np.zeros((1, 6, 6, 32), np.float32))
    with pytest.raises(ConversionError, match=r"layer 'inner' is called within a tf.function.*: call it directly"):
        convert(model, tmp_path / "model.tflite")
    model.save(tmp_path / "saved")
    with pytest.raises(ConversionError, match="'net' does not call its 1-bit layer 'inner' one by one"):
        convert(kbnn.loading.load_model(tmp_path / "saved"), tmp_path / "model.tflite")


def test_python_control_flow_on_tensors_is_refused(tmp_path):
    class Network(tf.keras.Model):
        def __init__(self):
            super().__init__(name="net")
            self.convolution = lq.layers.QuantConv2D(32, 3, name="inner", **sample_networks.BINARY)

        def call(self, x):
            if tf.reduce_mean(x) > 0:
                x = -x
            return tf.reduce_mean(self.convolution(x), [1, 2])

    model = Network()
    model(np.zeros((1, 6, 6, 32), np.float32))
    with pytest.raises(ConversionError, match=r"layer 'net' uses Python's if, for or while on a tensor.*: use Python"):
        convert(model, tmp_path / "model.tflite")


def test_each_of_several_inputs_needs_images():
    images = [layers.Input((4, 4, 3), name=name) for name in ("left", "right")]
    reference = Reference(tf.keras.Model(images, layers.Add()(images)))
    with pytest.raises(UsageError, match=r"has 2 inputs \('left', 'right'\): received no images for 'right'"):
        inputs_by_name(reference, np.zeros((2, 4, 4, 3)))


X = np.array([-1e4, -100, -20, -3, -1, -1e-6, 0, 1e-6, 0.5, 2, 15, 100, 1e4])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (tf.keras.activations.softplus, np.logaddexp(0, X)),
        (tf.nn.softsign, X / (1 + np.abs(X))),
        (lambda x: x * tf.tanh(tf.math.softplus(x)), X * np.tanh(np.logaddexp(0, X))),
        (lambda x: tf.math.log1p(tf.abs(x)), np.log1p(np.abs(X))),
    ],
    ids=["softplus", "softsign", "mish", "log1p"],
)
def test_functions_that_the_converter_lacks_are_composed_of_others(function, expected):
    @tf.function(input_signature=[tf.TensorSpec((len(X),))])
    def run(x):
        return called(function, x)

    assert {"Log1p", "Softplus", "Softsign"}.isdisjoint(
        node.type for node in run.get_concrete_function().graph.get_operations()
    )
    np.testing.assert_allclose(run(X.astype(np.float32)), expected, rtol=1e-6, atol=2e-7)


@pytest.mark.slow
@pytest.mark.parametrize("in_int8", [False, True])
def test_networks_with_such_functions_convert(in_int8, tmp_path):
    image = tf.keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="softplus", name="stem")(image)
    x = layers.Activation("softsign", name="activation")(layers.BatchNormalization()(x))
    x = layers.Add()([x, sample_networks.convolution(x, 32, "conv")])
    x = layers.Lambda(lambda x: x * tf.tanh(tf.nn.softplus(x)), name="mish")(x)
    logits = layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x))
    model = sample_networks.varied(sample_networks.randomized(tf.keras.Model(image, logits)))
    calibration = sample_networks.images(model, 64, seed=2) if in_int8 else None
    images = sample_networks.images(model)
    made = convert(model, tmp_path / "m.tflite", images, calibration=calibration, device="microcontroller")
    assert made.parity.passed
    # In float, the converter names no tensor after an activation that it composes of several operators.
    assert "mish" in {layer.name for layer in made.parity.layers}


def test_outputs_of_other_types_are_refused(tmp_path):
    image = layers.Input((6, 6, 32), name="image")
    x = layers.GlobalAveragePooling2D()(sample_networks.convolution(image, 32, "conv"))
    model = tf.keras.Model(image, tf.cast(x, tf.float16))
    with pytest.raises(ConversionError, match=r"has the type float16, .*: cast it to float32"):
        convert(model, tmp_path / "model.tflite")


def test_a_model_that_random_images_do_not_fit(tmp_path):
    tokens = tf.keras.Input(16, name="tokens")
    x = layers.Reshape((4, 4, 32))(layers.Embedding(50, 32)(tokens))
    model = tf.keras.Model(tokens, sample_networks.convolution(x, 32, "binary"), name="words")
    with pytest.raises(
        ConversionError, match=r"'words' cannot be run on random images \(indices.* is not in \[0, 50\)"
    ):
        convert(model, tmp_path / "model.tflite")
    given = np.arange(64, dtype=np.float32).reshape(4, 16) % 50
    assert convert(model, tmp_path / "model.tflite", given).parity.passed
