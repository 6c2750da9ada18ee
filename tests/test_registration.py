"""An installed package adds a quantizer, a method, a network and a data set through entry points."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn import datasets, methods, models, quantizers, testing
from kbnn.datasets import registry as data_registry
from kbnn.errors import UsageError
from kbnn.models import registry as model_registry
from kbnn.quantizers import registry as quantizer_registry
from kbnn.training import Recipe

REGISTRIES = (
    quantizer_registry._QUANTIZERS,
    methods._METHODS,
    model_registry._ARCHITECTURES,
    data_registry._DATASETS,
)

SOURCE = '''
import numpy as np
import tensorflow as tf
import kbnn


@kbnn.quantizers.register("plugin_sign", kind="activation", levels=(-1.0, 1.0))
class PluginSign(kbnn.quantizers.Estimator):
    @staticmethod
    def surrogate(x, dy):
        return dy * tf.maximum(1 - tf.abs(x) ** 3, 0)


@kbnn.methods.register("plugin_method")
def method():
    """Cubic signs, XNOR-Net's kernels."""
    return kbnn.methods.Method(input_quantizer="plugin_sign", kernel_quantizer="xnor")


@kbnn.models.register("plugin_net", input_shape=(8, 8, 1), classes=3)
def network(inputs, method, classes, *, width: float = 1.0):
    """One binary convolution."""
    x = tf.keras.layers.Conv2D(round(32 * width), 3, padding="same", name="stem")(inputs)
    x = method.convolution(x, 32, 3, name="conv")
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.layers.Dense(classes, dtype="float32", name="logits")(x)


@kbnn.datasets.register("plugin_data", classes=("dark", "grey", "light"))
def data():
    labels = np.arange(60) % 3
    images = np.random.default_rng(0).integers(0, 60, (60, 8, 8, 1)) + 80 * labels[:, None, None, None]
    return (images[:45].astype(np.uint8), labels[:45]), (images[45:].astype(np.uint8), labels[45:])
'''
ENTRIES = """
[kbnn.quantizers]
plugin_sign = kbnn_plugin:PluginSign
[kbnn.methods]
plugin_method = kbnn_plugin
[kbnn.architectures]
plugin_net = kbnn_plugin
[kbnn.datasets]
plugin_data = kbnn_plugin:data
"""


def install(folder: Path, source: str = SOURCE, entries: str = ENTRIES) -> None:
    """Writes the files of an installed package to a folder of sys.path."""
    (folder / "kbnn_plugin.py").write_text(source)
    info = folder / "kbnn_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kbnn-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)


@pytest.fixture(autouse=True)
def restored_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the registries after each test."""
    for registry in REGISTRIES:
        for name in ("_values", "_aliases", "_sources", "_loaded"):
            monkeypatch.setattr(registry, name, type(getattr(registry, name))(getattr(registry, name)))
    monkeypatch.delitem(sys.modules, "kbnn_plugin", raising=False)


def test_an_installed_package_is_found_by_name(tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "plugin_method" in methods.names()
    assert "plugin_net" in models.names()
    assert "plugin_data" in datasets.names()
    assert "plugin_sign" in quantizers.names("activation")
    assert methods.describe("plugin_method") == "Cubic signs, XNOR-Net's kernels."
    assert models.get("plugin_net").summary == "One binary convolution."
    loaded = datasets.load("plugin_data")
    assert (loaded.classes, loaded.test.size, loaded.input_shape) == (("dark", "grey", "light"), 15, (8, 8, 1))


@pytest.mark.slow
def test_the_contract_runs_on_it(tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    testing.check_quantizer("plugin_sign")
    testing.check_method("plugin_method+bma")
    testing.check_model("plugin_net", "plugin_method", width=0.5, convert=False)


@pytest.mark.slow
def test_the_command_trains_it(tmp_path):
    install(tmp_path)
    arguments = ["train", "--model", "plugin_net", "--method", "plugin_method", "--dataset", "plugin_data"]
    command = "import sys; from kbnn.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments, "--epochs", "1", "--batch", "8", "-o", str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.keras").is_file()


def test_a_broken_package_leaves_the_others_alone(tmp_path, monkeypatch):
    install(tmp_path, "raise ValueError('not today')", "[kbnn.methods]\nbroken = kbnn_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match=r"method 'broken' \(kbnn_plugin\) cannot be loaded: ValueError: not today"):
        assert "bireal" in methods.names()
    assert methods.get("bireal").is_binary


def test_registered_methods_can_be_combined():
    @methods.register("here")
    def here() -> methods.Method:
        """Tanh."""
        return methods.Method(input_quantizer="tanh", kernel_quantizer=quantizers.XNORSign())

    method = methods.get("here+std+ml")
    assert (method.name, method.base) == ("here+std+ml", "here")
    model = models.build("tiny", method="here+bma")
    first, second = model.get_layer("block1_conv1"), model.get_layer("block1_conv2")
    assert isinstance(first.input_quantizer, quantizers.TanhSign)
    assert first.kernel_quantizer is not second.kernel_quantizer
    assert isinstance(second.kernel_quantizer, quantizers.XNORSign)


def test_recipes_take_method_objects():
    method = methods.Method("quiet", input_quantizer="tanh", kernel_quantizer="xnor")
    recipe = Recipe.of("tiny", method, "digits")
    assert recipe.model.method == "quiet"
    assert recipe.name == "tiny-quiet-digits"
    assert isinstance(methods.get("quiet").input_quantizer(), quantizers.TanhSign)
    assert Recipe.of("tiny", methods.get("irnet+ml"), "digits").model.method == "irnet+ml"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.register("a+b"), r"'\+' separates modifiers"),
        (lambda: methods.register("bnn")(lambda: methods.Method()), "cannot register method 'bnn'"),
        (lambda: methods.Method(input_quantizer="tahn"), "unknown input_quantizer: received 'tahn'; did you mean tanh"),
        (lambda: methods.name_of(methods.Method()), "a method in a recipe needs a name"),
        (
            lambda: methods.name_of(methods.Method("xnor", input_quantizer="tanh", kernel_quantizer="xnor")),
            "method 'xnor' differs from the one registered under that name",
        ),
        (lambda: models.register("resnet20")(lambda inputs: inputs), "cannot register model 'resnet20'"),
        (lambda: datasets.register("digits")(lambda: None), "cannot register data set 'digits'"),
    ],
)
def test_invalid_arguments_are_explained(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (7, "data set 'wrong': data of 'train' is not images and labels: received int"),
        (((np.zeros((6, 4, 4, 1)), np.zeros(6)),) * 2, "labels of type float64"),
        (((np.zeros((30, 4, 4, 1), np.uint8), np.arange(30) % 6),) * 2, "labels up to 5: received 2 class names"),
    ],
)
def test_data_sets_of_the_wrong_form(found, message):
    datasets.register("wrong", classes=("a", "b"))(lambda: found)
    with pytest.raises(UsageError, match=message):
        datasets.load("wrong")


class Broken(quantizers.Estimator):
    """Passes a gradient that is not finite at zero."""

    @staticmethod
    def surrogate(x, dy):
        return dy / tf.abs(x)


class Ternary(quantizers.Estimator):
    """Has three values, but declares two."""

    @staticmethod
    def surrogate(x, dy):
        return dy

    @staticmethod
    def binarize(x):
        return tf.sign(tf.round(x))


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (Broken, "the gradient of Broken is not finite"),
        (Ternary, "values, not two"),
        (lambda: quantizers.get("ste_tern"), "declares no kind"),
    ],
)
def test_the_contract_finds_errors(quantizer, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_quantizer(quantizer)
