"""The trained weights in the package: hashes, accuracy, packing, and training that starts from them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn import examples, pretrained, structure, weights
from kbnn.errors import KbnnError, UsageError
from kbnn.models import build, names
from kbnn.training import Recipe
from kbnn.training.networks import network

NAMES = pretrained.names()


@pytest.fixture(scope="module")
def trained() -> tf.keras.Model:
    return build("resnet20", weights="cifar10")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_accuracy_on_the_sample_images_is_that_on_the_test_set(name: str):
    entry = pretrained.get(name)
    model = build(entry.network, weights=name)
    samples = examples.samples(entry.dataset)
    np.testing.assert_allclose((entry.mean, entry.std), (samples.mean, samples.std), rtol=1e-6)
    predicted = model.predict(samples.inputs, verbose=0).argmax(-1)
    right, count, top1 = (predicted == samples.labels).sum(), len(samples.labels), entry.test_top1
    # Four standard deviations of a sample of this size.
    assert right >= count * top1 - 4 * np.sqrt(count * top1 * (1 - top1))
    assert abs(entry.test_top1 - entry.latent_top1) < 0.001


def test_all_files_together_are_under_2_mb():
    assert sum(entry.path.stat().st_size for entry in pretrained.all_networks()) < 2_000_000


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    entry = pretrained.get(NAMES[0])
    copy = shutil.copytree(entry.path.parent, tmp_path / "pretrained")
    data = bytearray(entry.path.read_bytes())
    data[len(data) // 2] ^= 1
    (copy / entry.path.name).write_bytes(data)
    monkeypatch.setattr(pretrained, "_folder", lambda: copy)
    with pytest.raises(KbnnError, match="are damaged"):
        pretrained.get(NAMES[0])
    with pytest.raises(UsageError, match=f"did you mean .*{NAMES[0]}"):
        pretrained.get(NAMES[0] + "0")


@pytest.mark.slow
def test_weights_set_method_options_and_classes(trained: tf.keras.Model):
    entry = pretrained.find("resnet20", "cifar10")
    assert entry is not None
    assert trained.input_shape[1:] == entry.input_shape
    # docs/training.md says so.
    assert 3 * entry.path.stat().st_size < 4 * trained.count_params()
    assert trained.output_shape[-1] == len(entry.classes)
    expected = build("resnet20", entry.method, **entry.options)
    assert trained.count_params() == expected.count_params()


@pytest.mark.slow
def test_another_number_of_classes_gets_a_new_classifier(trained: tf.keras.Model):
    few = build("resnet20", weights="cifar10", classes=5, input_shape=(48, 48, 3))
    assert few.output_shape == (None, 5)
    np.testing.assert_array_equal(few.get_layer("stem_conv").kernel, trained.get_layer("stem_conv").kernel)


@pytest.mark.slow
def test_without_the_top_a_network_returns_the_input_of_its_classifier(trained: tf.keras.Model):
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    features = build("resnet20", weights="cifar10", include_top=False)(images).numpy()
    kernel, bias = trained.layers[-1].get_weights()
    np.testing.assert_allclose(features @ kernel + bias, trained(images).numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "vgg_small", "presb10", "react10", "compact32"])
def test_every_kind_of_network_can_be_built_without_its_top(name: str):
    model = build(name, include_top=False, classes=10)
    assert len(model.output_shape) == 2
    assert "logits" not in [layer.name for layer in model.layers]
    assert name in names()


@pytest.mark.slow
def test_weights_of_another_network_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no trained weights 'cifar10' of tiny, and no such path: none ship for tiny"):
        build("tiny", weights="cifar10")
    with pytest.raises(UsageError, match=r"no trained weights 'cifar' of resnet20.*resnet20-bnn-cifar10"):
        build("resnet20", weights="cifar")
    with pytest.raises(UsageError, match=r"layer 'stem_conv' differs"):
        build("resnet20", weights=weights.pack(build("tiny"), tmp_path))


@pytest.mark.core("bireal-int8")
@pytest.mark.parametrize(
    ("method", "kind"),
    [("bireal", "int8"), ("xnor+ml", "int8"), ("irnet", "int"), ("siman", "int"), ("adabin", "int")],
)
def test_packing_keeps_every_sign_and_the_mean_magnitude(method: str, kind: str, tmp_path: Path):
    tf.keras.utils.set_random_seed(0)
    model, again = build("tiny", method), build("tiny", method)
    weights.load(again, weights.pack(model, tmp_path))
    (path,) = tmp_path.iterdir()
    held = list(np.load(path).files)
    kernels = [name for name in held if "block" in name and "/kernel" in name and not name.endswith("scale")]
    assert all(kind in name for name in kernels if "shortcut" not in name)
    for mine, theirs in zip(structure.binary_layers(model), structure.binary_layers(again), strict=True):
        np.testing.assert_array_equal(structure.binary_signs(mine), structure.binary_signs(theirs))
        a, b = mine.latent_kernel.numpy(), theirs.latent_kernel.numpy()
        np.testing.assert_allclose(np.abs(a).mean((0, 1, 2)), np.abs(b).mean((0, 1, 2)), rtol=1e-5)
        assert (np.abs(a - b).max((0, 1, 2)) <= np.abs(a).max((0, 1, 2)) / 100).all()
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, again.get_layer("stem_conv").kernel)


def test_zero_weights_keep_their_sign(tmp_path: Path):
    model, again = build("tiny"), build("tiny")
    kernel = structure.binary_layers(model)[0].latent_kernel
    values = kernel.numpy()
    values[0, 0, 0, :4], values[..., 5] = 0.0, 0.0
    kernel.assign(values)
    weights.load(again, weights.pack(model, tmp_path))
    mine, theirs = (structure.binary_signs(structure.binary_layers(each)[0]) for each in (model, again))
    np.testing.assert_array_equal(mine, theirs)
    assert theirs[..., 5].all()


def test_a_file_without_packed_weights_is_refused(tmp_path: Path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"PK\3\4")
    with pytest.raises(KbnnError, match="not a file of packed weights"):
        weights.load(build("tiny"), path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(KbnnError, match="not a file of packed weights"):
        weights.load(build("tiny"), path)


@pytest.mark.slow
def test_a_recipe_takes_the_network_of_its_weights(trained: tf.keras.Model, tmp_path: Path):
    entry = pretrained.find("resnet20", "cifar10")
    assert entry is not None
    recipe = Recipe.of("resnet20", weights="cifar10", dataset="cifar10")
    assert (recipe.model.weights, recipe.model.method) == (entry.name, entry.method)
    assert recipe.model.options == entry.options
    Recipe.of("tiny", "siman", "digits", width=0.5).write(tmp_path / "config.toml")
    started = Recipe.of("tiny", dataset="digits", weights=tmp_path)
    assert (started.model.method, started.model.options) == ("siman", {"width": 0.5})
    assert started.model.weights == str(tmp_path)
    folders = (Recipe.of("resnet20", weights="cifar10", folder=tmp_path), Recipe.of("resnet20", folder=tmp_path))
    assert [recipe.data.size for recipe in folders] == [32, 224]
    with pytest.raises(UsageError, match="are for tiny: received model 'vgg_small'"):
        Recipe.of("vgg_small", dataset="digits", weights=tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_a_model_starts_from_a_run_or_a_file(tmp_path: Path):
    source = build("tiny", "siman", (16, 16, 3), 4, width=0.5)
    (tmp_path / "run").mkdir()
    source.save(tmp_path / "run" / "model.keras")
    source.save(tmp_path / "model.h5")
    Recipe.of("tiny", "siman", "digits", width=0.5).write(tmp_path / "run" / "config.toml")

    started = build("tiny", weights=tmp_path / "run")
    assert (started.input_shape, started.output_shape) == (source.input_shape, source.output_shape)
    for mine, theirs in zip(started.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    quantizers = [type(structure.binary_layers(model)[0].kernel_quantizer) for model in (started, source)]
    assert quantizers[0] is quantizers[1]
    few = build("tiny", weights=tmp_path / "run", classes=3)
    assert few.output_shape == (None, 3)
    np.testing.assert_array_equal(few.get_layer("stem_conv").kernel, source.get_layer("stem_conv").kernel)

    again = build("tiny", "siman", weights=tmp_path / "model.h5", width=0.5)
    assert again.output_shape == (None, 4)
    np.testing.assert_array_equal(again.layers[-1].get_weights()[0], source.layers[-1].get_weights()[0])

    with pytest.raises(UsageError, match="trained tiny: received model 'resnet20'"):
        build("resnet20", weights=tmp_path / "run")
    (tmp_path / "model.tflite").write_bytes(b"")
    with pytest.raises(UsageError, match="holds signs instead of weights to train"):
        build("tiny", weights=tmp_path / "model.tflite")
    # The run was trained on a data set by name, whose size the recipe does not record.
    for weights_of in ("run", "model.h5"):
        assert Recipe.of("tiny", "siman", weights=tmp_path / weights_of, folder=tmp_path).data.size == 16


@pytest.mark.slow
def test_training_starts_from_the_weights(trained: tf.keras.Model):
    class Data:
        input_shape, classes = (32, 32, 3), ("a", "b", "c")

    recipe = Recipe.of("resnet20", weights="cifar10")
    model = network(recipe, recipe.stage[0], Data())  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.get_layer("stem_conv").kernel, trained.get_layer("stem_conv").kernel)
    assert model.output_shape == (None, 3)
    Data.input_shape = (8, 8, 1)
    told = "in weights 'resnet20-bnn-cifar10' .*it reads 3 channels there and 1 here, give images with 3 channels"
    with pytest.raises(UsageError, match=told):
        network(recipe, recipe.stage[0], Data())  # type: ignore[arg-type]
