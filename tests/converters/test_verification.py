"""`verify` catches files that do not compute what Keras computes, and names the layers that differ."""

import json
from dataclasses import replace

import attacks
import larq as lq
import numpy as np
import pytest
import sample_networks
import tensorflow as tf

from kbnn.cli.command import to_json
from kbnn.converters import Description, convert, verify
from kbnn.converters.baseline import export_float
from kbnn.converters.tflite import flatbuffer, interpreter
from kbnn.converters.verify import agreement, rebuilding, verification
from kbnn.errors import KbnnError, UsageError

layers = tf.keras.layers


def test_an_equal_file(bireal, bireal_path):
    parity = verify(bireal, bireal_path, sample_networks.images(bireal))
    assert parity.passed
    assert parity.failures == []
    assert parity.samples == 32
    assert parity.top1_agreement == 1.0
    assert parity.max_abs_difference < 1e-4
    assert parity.median_abs_difference <= parity.max_abs_difference
    assert parity.kernel_bits_equal
    assert {kernel.name: kernel.bits for kernel in parity.kernels} == {"conv1": 9 * 32 * 32, "conv2": 9 * 32 * 64}
    assert [run.kernel for run in parity.runs] == ["default", "indirect", "reference"]
    assert parity.disagreements == []


def test_every_layer_is_compared_on_every_kernel(bireal, bireal_path):
    parity = verify(bireal, bireal_path, sample_networks.images(bireal))
    for kernel in ("default", "indirect", "reference"):
        compared = {layer.name for layer in parity.layers if layer.kernel == kernel}
        expected = {"stem", "conv1", "conv1_bn", "add1", "conv2", "conv2_bn", "short", "add2", "pool", "logits"}
        assert expected <= compared


def test_prints_as_a_table_and_dumps_as_json(bireal, bireal_path):
    parity = verify(bireal, bireal_path, sample_networks.images(bireal))
    assert "equal to Keras on 32 images" in str(parity)
    assert json.loads(json.dumps(to_json(parity)))["passed"] is True


def with_constant(file, tensor, value):
    """The file with another value of a constant."""
    model = flatbuffer.tree(file.data)
    buffer = model.buffers[model.subgraphs[0].tensors[tensor.index].buffer]
    buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    return flatbuffer.parse(flatbuffer.pack(model))


def test_one_flipped_kernel_bit_is_caught_and_its_layer_named(bireal, bireal_file):
    weights = [operator for operator in bireal_file.operators if operator.name == "LceBconv2d"][1].inputs[1]
    words = weights.value().copy()
    words[5, 1, 2, 0] ^= 1 << 17
    flipped = with_constant(bireal_file, weights, words)
    parity = sample_networks.parity(bireal, flipped)
    assert not parity.kernel_bits_equal
    assert {kernel.name: kernel.differing for kernel in parity.kernels} == {"conv1": 0, "conv2": 1}
    assert "layer 'conv2': 1 of 18432 kernel bits differ from Keras's" in parity.failures
    assert {layer.name for layer in parity.layers if not layer.passed} == {"conv2_bn"}


def test_a_wrong_multiplier_is_caught_and_its_layer_named(bireal, bireal_file):
    multiplier = next(operator for operator in bireal_file.operators if operator.name == "LceBconv2d").inputs[2]
    values = multiplier.value().copy()
    values[3] *= 1.01
    parity = sample_networks.parity(bireal, with_constant(bireal_file, multiplier, values))
    assert parity.kernel_bits_equal
    assert {layer.name for layer in parity.layers if not layer.passed} == {"conv1_bn"}


@pytest.mark.slow
def test_bits_between_convolutions_are_compared(tmp_path):
    model = sample_networks.plain()
    file = sample_networks.raw(model)
    assert sample_networks.parity(model, file).passed
    thresholds = next(operator for operator in file.operators if operator.name == "LceBconv2d").inputs[4]
    values = thresholds.value().copy()
    values[0] += 40
    parity = sample_networks.parity(model, with_constant(file, thresholds, values))
    assert {layer.name for layer in parity.layers if not layer.passed} == {"conv2"}
    assert max(layer.flips for layer in parity.layers) > 0


@pytest.mark.slow
def test_the_sign_of_a_shifted_sign_is_caught(tmp_path):
    """LCE ignores the constant in `sign(sign(x) + c)`."""
    image = tf.keras.Input((6, 6, 32), name="image")
    x = layers.Lambda(lambda x: tf.sign(tf.sign(x) + 2.0), name="wrong")(image)
    x = lq.layers.QuantConv2D(32, 3, **{**sample_networks.BINARY, "input_quantizer": None}, name="conv")(x)
    model = tf.keras.Model(image, x)
    parity = sample_networks.parity(model, sample_networks.raw(model))
    assert not parity.passed
    assert {layer.name for layer in parity.layers if not layer.passed} == {"wrong"}


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["height", "width"])
def test_a_constant_that_varies_over_the_image_is_caught(axis):
    """Between a binary convolution and a sign, LCE uses its first value for all positions."""
    shape = (1, 6, 1, 1) if axis == "height" else (1, 1, 6, 1)
    constant = np.linspace(-200, 200, 6, dtype=np.float32).reshape(shape)
    image = tf.keras.Input((6, 6, 32), name="image")
    x = lq.layers.QuantConv2D(32, 3, name="conv", **sample_networks.BINARY)(image)
    x = layers.Lambda(lambda x: x + constant, name="varying")(x)
    x = lq.layers.QuantConv2D(32, 3, name="next", **sample_networks.BINARY)(x)
    model = tf.keras.Model(image, x)
    parity = sample_networks.parity(model, sample_networks.raw(model))
    assert not parity.passed
    assert "next" in {layer.name for layer in parity.layers if not layer.passed}


def test_grouped_files_run_on_two_kernels():
    layer = lq.layers.QuantConv2D(64, 3, groups=2, **sample_networks.BINARY)
    model = sample_networks.single(layer)
    parity = sample_networks.parity(model, sample_networks.raw(model))
    assert parity.passed
    assert {run.kernel: run.refused is None for run in parity.runs} == {
        "default": False,
        "indirect": True,
        "reference": True,
    }
    assert {layer.kernel for layer in parity.layers} == {"indirect", "reference"}


@pytest.mark.slow
def test_disagreeing_images_are_listed_with_their_margins(bireal, bireal_file):
    bias = next(operator for operator in bireal_file.operators if operator.name == "FULLY_CONNECTED").inputs[2]
    assert bias is None or bias.data is not None
    weights = next(operator for operator in bireal_file.operators if operator.name == "FULLY_CONNECTED").inputs[1]
    file = with_constant(bireal_file, weights, -weights.value())
    images = sample_networks.images(bireal)
    parity = sample_networks.parity(bireal, file)
    logits = bireal.predict(images, verbose=0)
    assert len(parity.disagreements) == round(32 * (1 - parity.top1_agreement)) > 0
    for found in parity.disagreements:
        row = logits[found.image]
        assert found.keras == row.argmax() != found.file
        assert found.margin == pytest.approx(row[found.keras] - row[found.file], abs=1e-5)


def test_another_networks_file(bireal, bireal_path):
    other = sample_networks.bireal(size=8)
    with pytest.raises(KbnnError, match="the file was made of another model: its inputs are"):
        verify(other, bireal_path, sample_networks.images(other))


def test_images_of_another_shape(bireal, bireal_path):
    with pytest.raises(UsageError, match=r"the images do not fit input 'image': received shape \(4, 3, 3, 3\)"):
        verify(bireal, bireal_path, np.zeros((4, 3, 3, 3), np.float32))
    with pytest.raises(UsageError, match=r"received shape \(\), expected \(N, "):
        verify(bireal, bireal_path, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite(value, bireal, bireal_path):
    images = sample_networks.images(bireal)
    images[0, 0, 0, 0] = value
    with pytest.raises(UsageError, match="the images for input 'image' contain NaN or infinity"):
        verify(bireal, bireal_path, images)


def test_images_may_be_a_tensor(bireal, bireal_path):
    assert verify(bireal, bireal_path, tf.constant(sample_networks.images(bireal))).passed


def test_a_file_without_lce_operators(bireal, tmp_path):
    export_float(bireal, tmp_path / "plain.tflite")
    with pytest.raises(KbnnError, match="contains no operator of Larq Compute Engine"):
        verify(bireal, tmp_path / "plain.tflite", sample_networks.images(bireal))


def test_a_missing_file(bireal):
    with pytest.raises(UsageError, match="no such file"):
        verify(bireal, "none.tflite", sample_networks.images(bireal))


@pytest.mark.slow
@pytest.mark.parametrize("made", [sample_networks.deployed, sample_networks.raw], ids=["kbnn", "LCE"])
def test_the_parts_of_a_split_are_told_apart(made):
    """All outputs of an operator have the same name."""
    image = tf.keras.Input((8, 8, 32), name="image")
    parts = layers.Lambda(lambda x: tf.split(x, 2, axis=-1), name="split")(image)
    x = layers.Concatenate()([layers.Conv2D(16, 3, padding="same", name=f"part{k}")(x) for k, x in enumerate(parts)])
    x = layers.GlobalAveragePooling2D()(sample_networks.convolution(x, 32, "conv1"))
    model = sample_networks.randomized(tf.keras.Model(image, x))
    parity = sample_networks.parity(model, made(model))
    assert parity.failures == []
    assert {"split", "part0", "part1"} <= {layer.name for layer in parity.layers}


@pytest.mark.parametrize(("margin", "passed"), [(4.0, True), (0.0, False)])
def test_outputs_may_differ_as_far_as_rounding_moves_keras(margin, passed, bireal, bireal_file, monkeypatch):
    """In a deep network one rounded value can change all outputs, in Keras too."""
    monkeypatch.setattr(verification, "LOGIT_TOLERANCE", 1e-12)
    monkeypatch.setattr(verification, "SENSITIVITY_MARGIN", margin)
    parity = sample_networks.parity(bireal, bireal_file)
    assert parity.passed is passed
    assert 1e-9 < parity.sensitivity / parity.logit_range < 1e-2
    assert "when the images change by 1e-06 of their range" in str(parity)
    assert all("differ from Keras's by" in failure for failure in parity.failures)


@pytest.mark.slow
def test_sensitivity_is_measured_only_if_the_outputs_differ(bireal, bireal_file):
    parity = sample_networks.parity(bireal, bireal_file)
    assert parity.sensitivity is None
    assert "when the images change" not in str(parity)


def test_a_new_conversion_gives_the_same_file(bireal, bireal_path):
    parity = verify(bireal, bireal_path, sample_networks.images(bireal))
    assert parity.rebuilt is True
    assert "byte for byte" in str(parity)


def described(bireal, path, **changes):
    description = Description(dataset="letters", labels=tuple("abcdefghij"), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    convert(bireal, path, sample_networks.images(bireal), description=replace(description, **changes))
    return path.read_bytes()


@pytest.fixture(scope="module")
def labelled(bireal, tmp_path_factory):
    """The bytes of a file with labels, and of one whose labels are swapped."""
    folder = tmp_path_factory.mktemp("labelled")
    return described(bireal, folder / "a.tflite"), described(bireal, folder / "b.tflite", labels=tuple("bacdefghij"))


@pytest.mark.slow
def test_swapped_labels_are_found(bireal, labelled):
    right, _ = labelled
    swapped = right.replace(b"a\nb\nc", b"b\na\nc")
    assert swapped != right
    parity = sample_networks.parity(bireal, flatbuffer.parse(swapped))
    assert parity.rebuilt is False
    assert not parity.passed


@pytest.mark.slow
def test_labels_of_another_record_are_found_with_the_data_set(bireal, labelled, tmp_path):
    """The record and the labels agree, so only the data set shows that they are swapped."""
    _, swapped = labelled
    (tmp_path / "swapped.tflite").write_bytes(swapped)
    images = sample_networks.images(bireal)
    expected = Description(dataset="letters", labels=tuple("abcdefghij"), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    assert verify(bireal, tmp_path / "swapped.tflite", images).passed
    parity = verify(bireal, tmp_path / "swapped.tflite", images, description=expected)
    assert parity.failures == ["its labels are not those of data set 'letters'"]
    parity = verify(bireal, tmp_path / "swapped.tflite", images, description=replace(expected, dataset="alphabet"))
    assert parity.failures == ["its labels are those of data set 'alphabet', in another order"]


@pytest.mark.slow
def test_swapped_labels_of_a_file_without_a_record_are_found(bireal, labelled):
    model = flatbuffer.tree(labelled[1])
    model.metadata = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    archive = labelled[1][labelled[1].index(b"PK\x03\x04") :]
    file = flatbuffer.parse(flatbuffer.pack(model) + archive)
    expected = Description(dataset="letters", labels=tuple("abcdefghij"))
    assert verification._wrong_description(file, expected) == (
        "its labels are those of data set 'letters', in another order"
    )
    assert verification._wrong_description(file, replace(expected, labels=tuple("bacdefghij"))) is None


@pytest.mark.slow
def test_changed_normalization_is_found(bireal, labelled):
    model = flatbuffer.tree(labelled[0])
    entry = next(entry for entry in model.metadata if entry.name == b"TFLITE_METADATA")
    data = bytes(model.buffers[entry.buffer].data)
    mean = np.array([1, 2, 3], np.float32).tobytes()
    assert data.count(mean) == 1
    changed = data.replace(mean, np.array([3, 2, 1], np.float32).tobytes())
    model.buffers[entry.buffer].data = np.frombuffer(changed, np.uint8)
    parity = sample_networks.parity(bireal, flatbuffer.parse(flatbuffer.pack(model)))
    assert "its metadata entry TFLITE_METADATA differs" in parity.failures


@pytest.mark.parametrize("changes", [{"labels": "abc"}, {"labels": [1]}, {"mean": ["1"]}, {"std": 1.0}, {"model": 3}])
def test_a_damaged_description_is_ignored(changes):
    record = {"model": "net", "recipe": "", "dataset": "pets", "labels": ["cat"], "mean": [1, 2.5], "std": [3.0]}
    file = flatbuffer.parse(attacks.no_outputs())
    sound = replace(file, metadata={"KBNN": json.dumps(record).encode()})
    assert rebuilding.description_of(sound) == Description("net", "", "pets", ("cat",), (1, 2.5), (3.0,))
    damaged = replace(file, metadata={"KBNN": json.dumps({**record, **changes}).encode()})
    assert rebuilding.description_of(damaged) is None


def test_appended_bytes_are_found(bireal, bireal_file):
    parity = sample_networks.parity(bireal, flatbuffer.parse(bireal_file.data + b"more"))
    assert parity.failures == ["4 bytes are appended to it"]


@pytest.mark.slow
@pytest.mark.parametrize("change", [1, -1, 3])
def test_a_threshold_that_is_off_by_a_little_is_found(change, tmp_path):
    model = sample_networks.plain()
    convert(model, tmp_path / "model.tflite")
    file = flatbuffer.read(tmp_path / "model.tflite")
    thresholds = next(operator for operator in file.operators if operator.name == "LceBconv2d").inputs[4]
    values = thresholds.value().copy()
    values[7] += change
    parity = sample_networks.parity(model, with_constant(file, thresholds, values))
    assert any(failure.startswith(f"constant '{thresholds.name}' differs in") for failure in parity.failures)


def test_a_file_of_other_versions_is_not_compared_with_a_new_conversion(bireal, bireal_file):
    model = flatbuffer.tree(bireal_file.data)
    record = {**json.loads(bireal_file.metadata["KBNN"]), "tools": "tensorflow 1.0"}
    flatbuffer.add_metadata(model, "KBNN", json.dumps(record).encode())
    parity = sample_networks.parity(bireal, flatbuffer.parse(flatbuffer.pack(model)))
    assert parity.passed
    assert parity.rebuilt is None
    assert "not compared with a new conversion: it was made by kbnn" in str(parity)
    assert "tensorflow 1.0" in parity.not_rebuilt


def test_a_file_whose_values_have_other_sizes_is_not_equal(bireal, bireal_path):
    """With another padding of the stem, values have other sizes."""
    image = tf.keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(32, 3, use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Add(name="add1")([x, sample_networks.convolution(x, 32, "conv1")])
    x = sample_networks.convolution(x, 64, "conv2", strides=2)
    x = layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
    other = tf.keras.Model(image, x, name="bireal")
    parity = verify(other, bireal_path, sample_networks.images(other))
    assert not parity.passed
    assert parity.rebuilt is False


def test_the_agreement_of_each_output(tmp_path):
    """A network with a classifier, and with a map whose pixels are classified."""
    image = tf.keras.Input((6, 6, 32), name="image")
    x = sample_networks.convolution(image, 32, "conv")
    pixels = layers.Conv2D(4, 1, activation="softmax", name="pixels")(x)
    classes = layers.Dense(3, name="classes")(layers.GlobalAveragePooling2D()(x))
    model = sample_networks.randomized(tf.keras.Model(image, [classes, pixels]))
    parity = convert(model, tmp_path / "model.tflite").parity
    assert [(output.name, output.is_map) for output in parity.outputs] == [("classes", False), ("pixels", True)]
    assert parity.top1_agreement == min(output.top1_agreement for output in parity.outputs) == 1.0
    assert "'pixels' 100.0% of the pixels" in str(parity)


def test_one_probability_is_decided_at_a_half():
    """As in Keras's binary accuracy, 0.5 itself is class 0. Outputs that are not probabilities predict no class."""
    expected = {
        "p": np.float32([[0.2], [0.5], [0.6], [0.9]]),
        "pixels": np.float32([0.1, 0.7, 0.8, 0.4]).reshape(1, 2, 2, 1),
        "flat": np.float32([0.2, 0.9]),
        "price": np.float32([[0.2], [7.0]]),
        "count": np.array([[0], [1]]),
    }
    found = {
        "p": np.float32([[0.4], [0.51], [0.55], [1.02]]),
        "pixels": np.float32([0.2, 0.6, 0.3, 0.2]).reshape(1, 2, 2, 1),
        "flat": np.float32([0.1, 0.6]),
        "price": np.float32([[0.9], [0.1]]),
        "count": np.array([[1], [0]]),
    }
    made = agreement.agreements(expected, found)
    assert [(o.name, o.top1_agreement, o.is_map) for o in made] == [
        ("flat", 1.0, False),
        ("p", 0.75, False),
        ("pixels", 0.75, True),
    ]
    assert agreement.without_classes(expected) == ["count", "price"]
    assert agreement.accuracy({"p": expected["p"]}, np.array([0, 0, 1, 0])).top1 == 0.75
    assert agreement.accuracy({"price": expected["price"]}, np.array([0, 1])) is None


def scored(end, name):
    """A network with one score per image."""
    image = tf.keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same", name="stem")(image))
    x = layers.GlobalAveragePooling2D()(sample_networks.convolution(x, 32, "conv"))
    model = tf.keras.Model(image, layers.Dense(1, name="logits")(x))
    sample_networks.varied(sample_networks.randomized(model))
    return tf.keras.Model(image, end(model.output), name=name)


@pytest.mark.slow
def test_a_single_score_in_int8_is_compared_by_its_decisions(tmp_path):
    steep = scored(lambda x: layers.Activation("sigmoid", name="score")(20 * x), "steep")
    images = sample_networks.images(steep, 64, seed=2)
    options = {"calibration": images, "device": "microcontroller"}
    artifact = convert(steep, tmp_path / "steep.tflite", images, **options)
    keras = steep.predict(images, verbose=0)
    (file,) = interpreter.run(flatbuffer.read(tmp_path / "steep.tflite").data, [images])
    same = np.mean((keras > 0.5) == (file > 0.5))
    assert 0.5 < same < 1.0
    assert artifact.parity.top1_agreement == same
    assert len(artifact.parity.disagreements) == round(64 * (1 - same))
    assert f"same class as the trained network for {same:.1%} of the images" in str(artifact)
    number = scored(lambda x: layers.Rescaling(5.0, name="price")(x), "number")
    parity = convert(number, tmp_path / "number.tflite", images, **options).parity
    assert parity.outputs == []
    assert parity.without_classes == ["price"]
    assert "no decisions are compared at output 'price', which predicts no classes" in str(parity)
    assert "no classes" in str(parity)


def test_agreement_and_accuracy_by_hand():
    expected = {"map": np.eye(2)[[[0, 1], [1, 1]]], "head": np.eye(3)[[0, 2]], "number": np.full((2, 1), 2.0)}
    found = {"map": np.eye(2)[[[0, 1], [1, 0]]], "head": np.eye(3)[[0, 1]], "number": np.zeros((2, 1))}
    assert {o.name: o.top1_agreement for o in agreement.agreements(expected, found)} == {"map": 0.75, "head": 0.5}
    right = agreement.accuracy({"head": np.eye(2)[[0] * 80 + [1] * 20]}, np.zeros(100, int))
    # Wilson's score interval for 80 of 100, from the published formula.
    assert (right.top1, round(right.low, 4), round(right.high, 4)) == (0.8, 0.7112, 0.8666)


@pytest.mark.slow
def test_the_summary_begins_with_the_trained_network(bireal, bireal_path):
    images = sample_networks.images(bireal)
    labels = bireal.predict(images, verbose=0).argmax(1)
    parity = verify(bireal, bireal_path, images, labels=labels)
    first, second, *_ = str(parity).splitlines()
    assert (
        "same class as the trained network for 100.0% of the images (of 32 images); accuracy 100.0% (89.3% to" in first
    )
    assert second == "equal to Keras on 32 images"
