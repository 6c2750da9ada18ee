"""Untrusted model files: a file that could run code is refused before Keras reads it.

Each attack, if it ran, would make a marker file. With `trust=True` they do, which shows that the attacks are real.
"""

import base64
import contextlib
import copy
import json
import marshal
import os
import random
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import kbnn
from kbnn.cli import main
from kbnn.errors import KbnnError, UsageError
from kbnn.loading import UntrustedModelError, check_config, load_model

Config = dict[str, object]

INPUT = {
    "module": "keras.layers",
    "class_name": "InputLayer",
    "config": {"batch_input_shape": [None, 4], "dtype": "float32", "name": "input"},
    "registered_name": None,
    "name": "input",
    "inbound_nodes": [],
}


def functional(*layers: Config) -> Config:
    """A functional model's configuration."""
    return {
        "module": "keras.src.engine.functional",
        "class_name": "Functional",
        "registered_name": "Functional",
        "config": {
            "name": "model",
            "trainable": True,
            "layers": [INPUT, *layers],
            "input_layers": [["input", 0, 0]],
            "output_layers": [["input", 0, 0]],
        },
    }


def layer(name: str, config: Config, inbound: object, module: str | None = "keras.layers", **more: object) -> Config:
    described = {"class_name": name, "config": {"name": "evil", **config}, "name": "evil", "inbound_nodes": inbound}
    return {**described, **({} if module is None else {"module": module, "registered_name": None}), **more}


def constant(value: object, **arguments: object) -> list[object]:
    """A call with a constant instead of another layer's output."""
    return [["_CONSTANT_VALUE", -1, value, arguments]]


def function(module: str, name: str) -> Config:
    return {"class_name": "function", "module": module, "config": name, "registered_name": name}


OPS = "keras.src.layers.core.tf_op_layer"


def write_zip(path: Path, config: object, weights: Callable[[h5py.File], object] | None = None) -> None:
    with h5py.File(path.with_suffix(".part"), "w") as file:
        file.create_group("_layer_checkpoint_dependencies")
        if weights:
            weights(file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.write(path.with_suffix(".part"), "model.weights.h5")


def write_hdf5(path: Path, config: object) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.create_group("model_weights").attrs["layer_names"] = []


def bytecode(marker: Path) -> list[object]:
    """A Python function that creates the marker, in the form in which Keras stores functions."""
    code = compile(f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]", "f", "eval").co_consts[0]
    return [base64.b64encode(marshal.dumps(code)).decode(), None, None]


CODE = {
    "function_type": "lambda",
    "module": None,
    "output_shape": None,
    "output_shape_type": "raw",
    "output_shape_module": None,
    "arguments": {},
}


def lambda_layer(marker: Path, **more: object) -> Config:
    return layer("Lambda", {"function": bytecode(marker), **CODE}, [[["input", 0, 0, {}]]], **more)


def called(what: Config, text: str) -> Config:
    """A layer that calls a function on a text."""
    return layer("Lambda", {"function": what, **CODE, "function_type": "function"}, constant(text))


def imported(marker: Path) -> str:
    """The name of a module that creates the marker when it is imported."""
    name = f"imported_{zlib.crc32(os.fsencode(marker))}"
    (marker.parent / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    return name


# Each writes a file that creates the marker when Keras loads it.
ATTACKS: dict[str, Callable[[Path, Path], None]] = {
    "lambda in HDF5": lambda path, marker: write_hdf5(path, functional(lambda_layer(marker, module=None))),
    "lambda in HDF5 under a registered name": lambda path, marker: write_hdf5(
        path, functional(lambda_layer(marker, module="kbnn.quantizers.libra", registered_name="kbnn>LibraSign"))
    ),
    "lambda": lambda path, marker: write_zip(path, functional(lambda_layer(marker))),
    "os.system": lambda path, marker: write_zip(path, functional(called(function("os", "system"), f"touch {marker}"))),
    "exec": lambda path, marker: write_zip(
        path, functional(called(function("builtins", "exec"), f"open('{marker}', 'w').close()"))
    ),
    "a registered name, a module that is imported": lambda path, marker: write_zip(
        path, functional(layer("SteSign", {}, [], module=imported(marker)))
    ),
    "a registered name, and a function in its place": lambda path, marker: write_zip(
        path,
        functional(layer("SteSign", {}, constant(f"touch {marker}"), module="subprocess", registered_name="getoutput")),
    ),
    "write_file": lambda path, marker: write_zip(
        path, functional(layer("TFOpLambda", {"function": "io.write_file"}, constant(str(marker), contents="x"), OPS))
    ),
    "print to a file": lambda path, marker: write_hdf5(
        path,
        functional(
            layer("TFOpLambda", {"function": "print"}, constant("x", output_stream=f"file://{marker}"), module=None)
        ),
    ),
}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "marker"


@pytest.mark.parametrize("attack", ATTACKS)
def test_untrusted_files_run_no_code(attack: str, tmp_path: Path, marker: Path):
    path = tmp_path / "model.keras"
    ATTACKS[attack](path, marker)
    with pytest.raises(UntrustedModelError, match="layer 'evil'"):
        load_model(path)
    assert not marker.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attacks_work_without_the_check(attack: str, tmp_path: Path, marker: Path):
    path = tmp_path / "model.keras"
    ATTACKS[attack](path, marker)
    with contextlib.suppress(KbnnError):
        load_model(path, trust=True)
    assert marker.exists()


EVIL: dict[str, Config] = {
    "os.system": function("os", "system"),
    "builtins.eval": function("builtins", "eval"),
    "Keras's own loader": function("keras.src.saving.saving_api", "load_model"),
    "Keras's own loader instead of a function": {
        **function("keras.models", "relu"),
        "registered_name": "load_model",
    },
    "Keras's own loader instead of a class": {
        **layer("Functional", {}, []),
        "module": "keras.models",
        "registered_name": "load_model",
    },
    "a registered name in a module": layer("SteSign", {}, [], module="my_layers"),
    "subprocess.Popen": {"class_name": "Popen", "module": "subprocess", "config": {}, "registered_name": "Popen"},
    "lambda": {"class_name": "__lambda__", "config": {"value": ["", None, None]}},
    "Lambda": {"class_name": "Lambda", "config": {"function": "f"}},
    "typespec": {"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess", "config": []},
    "TypeSpec": {"class_name": "TypeSpec", "type_spec": "other.Spec", "serialized": []},
    "py_function": layer("TFOpLambda", {"function": "py_function"}, [], OPS),
    "read_file": layer("TFOpLambda", {"function": "io.read_file"}, [], module=None),
    "raw operation": layer("TFOpLambda", {"function": "raw_ops.WriteFile"}, [], OPS),
    "map_fn": layer("TFOpLambda", {"function": "map_fn"}, [], OPS),
    "method": layer("InstanceMethod", {"method_name": "eval"}, [], OPS),
    "graph": layer("TensorFlowOpLayer", {"node_def": {}}, [], OPS),
    "lookup": layer("StringLookup", {"vocabulary": "secrets.txt"}, []),
    "unregistered": {"class_name": "Unheard", "module": "my_layers", "config": {}, "registered_name": "my>Unheard"},
    "no name": {"class_name": ["Lambda"], "config": {}},
    "no operation": layer("TFOpLambda", {"function": {"class_name": "x"}}, [], OPS),
}


def chain(count: int) -> list[Config]:
    """Layers, each of which reads the one before it."""
    names = ["input", *(f"layer{k}" for k in range(count))]
    layers = [layer("Activation", {"activation": "relu"}, [[[source, 0, 0, {}]]]) for source in names[:-1]]
    for name, described in zip(names[1:], layers, strict=True):
        described["name"] = described["config"]["name"] = name
    return layers


def linked(path: Path) -> None:
    write_zip(path, functional(), lambda file: file.__setitem__("a", h5py.ExternalLink("other.h5", "/")))


def external(path: Path) -> None:
    path.with_suffix(".bin").write_bytes(bytes(64))
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (4,), "f4", external=str(path.with_suffix(".bin")))


def with_member(path: Path) -> None:
    write_zip(path, functional())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/vocabulary.txt", "x")


def in_two_formats(path: Path) -> None:
    write_hdf5(path, functional(lambda_layer(path.with_suffix(".marker"), module=None)))
    first = path.read_bytes()
    write_zip(path, functional())
    path.write_bytes(first + path.read_bytes())


def compressed(path: Path, **members: bytes) -> None:
    """An archive with a compressed configuration or metadata, or compressed weights if there are no such members."""
    write_zip(path, functional())
    with zipfile.ZipFile(path) as archive:
        weights = archive.read("model.weights.h5")
    contents = {"config": json.dumps(functional()).encode(), **members}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(f"{name}.json", content)
        archive.writestr("model.weights.h5", weights, zipfile.ZIP_STORED if members else None)


def in_a_loop(path: Path) -> None:
    first = layer("Activation", {"activation": "relu"}, [[["second", 0, 0, {}]]])
    second = layer("Activation", {"activation": "relu"}, [[["first", 0, 0, {}]]])
    for name, described in (("first", first), ("second", second)):
        described["name"] = described["config"]["name"] = name
    write_zip(path, functional(first, second))


def nested(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "[" * 60_000


# Each writes a file that is refused, with what the error says. benchmarks/soak.py loads them, too.
HOSTILE: dict[str, tuple[Callable[[Path], object], type[KbnnError], str]] = {
    "a link to another file": (linked, UntrustedModelError, r"refers to another file \('other\.h5'\)"),
    "an array in another file": (external, UntrustedModelError, "keeps array 'a' in another file"),
    "an unexpected member": (with_member, UntrustedModelError, r"it contains 'assets/vocabulary\.txt'"),
    "two formats": (in_two_formats, UntrustedModelError, "is both a ZIP archive and an HDF5 file"),
    "an array of 4 TB": (
        lambda path: write_zip(path, functional(), lambda file: file.create_dataset("a", (10**12,), "f4")),
        KbnnError,
        r"too large: received 4,000,000,000,000 bytes .* exceeds it is '/a'",
    ),
    "a layer of 40 GB": (
        lambda path: write_zip(path, functional(layer("Dense", {"units": 10**10}, [[["input", 0, 0, {}]]]))),
        KbnnError,
        "describes a network of more than",
    ),
    "a compressed configuration": (
        lambda path: compressed(path, config=b" " * 64_000_001),
        KbnnError,
        r"is too large: received 64,000,001 bytes .* the limit is 64,000,000",
    ),
    "compressed metadata": (
        lambda path: compressed(path, metadata=b" " * 64_000_001),
        KbnnError,
        r"is too large: received 64,000,001 bytes .* the limit is 64,000,000",
    ),
    "compressed weights": (compressed, KbnnError, "has compressed weights"),
    "layers in reverse order": (
        lambda path: write_zip(path, functional(*reversed(chain(5_000)))),
        KbnnError,
        "its layers are not in order",
    ),
    "layers that depend on each other": (in_a_loop, KbnnError, "layer 'first' depends on its own output"),
    "a deeply nested configuration": (nested, KbnnError, "its configuration is damaged"),
    **{
        f"{content[:8]!r}": (lambda path, content=content: path.write_bytes(content), KbnnError, "is not a readable")
        for content in (b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n" + bytes(100), b"no model")
    },
    **{
        f"{name}, as an initializer": (
            lambda path, evil=evil: write_zip(
                path, functional(layer("Dense", {"units": 2, "kernel_initializer": evil}, []))
            ),
            UntrustedModelError,
            "could run code",
        )
        for name, evil in EVIL.items()
    },
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str, tmp_path: Path):
    write, error, message = HOSTILE[case]
    write(tmp_path / "model.keras")
    with pytest.raises(error, match=message):
        load_model(tmp_path / "model.keras")


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every place in a configuration whose value can be replaced."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def replaceable(config: Config, generator: random.Random) -> tuple[Any, Any]:
    # An operation's name is not an object, and another class name would describe another object.
    kept = ("class_name", "module", "registered_name", "function")
    return generator.choice([(holder, key) for holder, key in places(config) if key not in kept])


@pytest.mark.parametrize("evil", EVIL)
def test_attacks_are_found_anywhere_in_a_configuration(evil: str, tmp_path: Path):
    dense = layer("Dense", {"units": 2, "kernel_initializer": {"class_name": "Zeros", "config": {}}}, [])
    whole = functional(dense, layer("TFOpLambda", {"function": "math.add"}, constant([1.0, [2.0]], y=3.0), OPS))
    check_config(tmp_path, whole)
    generator = random.Random(evil)  # noqa: S311
    for _ in range(40):
        config = copy.deepcopy(whole)
        holder, key = replaceable(config, generator)
        holder[key] = copy.deepcopy(EVIL[evil])
        with pytest.raises(UntrustedModelError):
            check_config(tmp_path, config)


def test_the_refusal_names_layer_cause_and_remedies(tmp_path: Path, marker: Path):
    path = tmp_path / "model.keras"
    ATTACKS["lambda"](path, marker)
    with pytest.raises(UntrustedModelError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"'{path}' could run code when it is loaded: layer 'evil' is or has a Lambda, which contains Python code; "
        f"register your own classes with tf.keras.utils.register_keras_serializable before loading, or pass "
        f"trust=True if you trust its author"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "MODEL", "-o", "out.tflite"],
        ["evaluate", "MODEL", "--data", "digits"],
        ["analyze", "MODEL", "--data", "digits"],
        ["export-android", "MODEL", "--data", "digits", "-o", "assets"],
        ["export-c", "MODEL", "--calibrate", "digits", "-o", "firmware"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("attack", ["lambda in HDF5", "os.system"])
def test_commands_refuse_and_offer_trust(
    arguments: list[str], attack: str, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ATTACKS[attack](tmp_path / "model.keras", marker)
    done = CliRunner().invoke(main, [each.replace("MODEL", "model.keras") for each in arguments])
    assert done.exit_code == 1, done.output
    assert "could run code" in done.stderr
    assert done.stderr.endswith("if you trust its author (here: --trust)\n")
    assert not marker.exists()


@pytest.mark.slow
def test_a_run_and_a_start_from_weights_are_checked(tmp_path: Path, marker: Path):
    recipe = kbnn.training.Recipe.of("tiny", "bireal", "digits", epochs=1)
    recipe.write(tmp_path / "run" / "config.toml")
    ATTACKS["lambda"](tmp_path / "run" / "model.keras", marker)
    with pytest.raises(UntrustedModelError):
        kbnn.training.Run.open(tmp_path / "run").model()
    for source in (tmp_path / "run", tmp_path / "run" / "model.keras"):
        started = recipe.changed({"model.weights": str(source)})
        with pytest.raises(UntrustedModelError):
            kbnn.training.train(started, tmp_path / "started")
        taught = recipe.changed({"stage.1.distillation.teacher": str(source)})
        with pytest.raises(UntrustedModelError):
            kbnn.training.train(taught, tmp_path / "taught")
    assert not marker.exists()


def arithmetic() -> tf.keras.Model:
    """A network of common layers and TensorFlow operations."""
    images = tf.keras.Input((6, 6, 3))
    x = tf.keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2", kernel_initializer="he_normal")(images)
    x = tf.maximum(0.1 * x + 1.0 - x, tf.nn.relu(x)) / 2.0
    x = tf.concat([x[:, :2], tf.reshape(tf.transpose(x, [0, 2, 1, 3]), (-1, 4, 4, 4))[:, 2:]], axis=1)
    inner = tf.keras.Sequential([tf.keras.layers.BatchNormalization(), tf.keras.layers.PReLU()])
    x = tf.keras.layers.GlobalAveragePooling2D()(inner(tf.where(x > 0.5, x, -x)))
    return tf.keras.Model(images, tf.keras.layers.Dense(3)(x))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5", "", ".H5", ".weights"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_ordinary_models_load(suffix: str, tmp_path: Path):
    model = arithmetic()
    path = tmp_path / f"model{suffix}"
    model.save(path, save_format={"": "tf", ".H5": "h5", ".weights": "h5"}.get(suffix))
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(load_model(path)(images), model(images), rtol=1e-6)


@pytest.mark.slow
def test_a_compiled_model_of_a_method_loads(tmp_path: Path):
    model = kbnn.models.build("tiny", method="irnet+ml", input_shape=(8, 8, 1), classes=4)
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(load_model(tmp_path / "model.keras")(images), model(images), rtol=1e-6)


class Writes(tf.keras.Model):
    """Writes the marker when it is called."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        tf.io.write_file(self.marker, "x")
        return inputs


def test_a_saved_model_that_writes_files(tmp_path: Path, marker: Path):
    model = Writes(marker)
    model(tf.ones((1, 2)))
    model.save(tmp_path / "saved", save_format="tf")
    marker.unlink()
    with pytest.raises(UntrustedModelError, match="operation WriteFile"):
        load_model(tmp_path / "saved")
    assert not marker.exists()


def test_a_saved_model_with_a_lambda(tmp_path: Path):
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Lambda(lambda x: x + 1, name="evil")])
    model.save(tmp_path / "saved", save_format="tf")
    with pytest.raises(UntrustedModelError, match="layer 'evil' is or has a Lambda"):
        load_model(tmp_path / "saved")


def test_a_saved_model_without_keras_metadata(tmp_path: Path):
    module = tf.Module()
    module.f = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([2])])
    tf.saved_model.save(module, tmp_path / "saved")
    with pytest.raises(KbnnError, match=r"has no keras_metadata\.pb; save it with model\.save"):
        load_model(tmp_path / "saved")


def test_weights_in_another_file_are_refused(tmp_path: Path):
    external(tmp_path / "external.h5")
    model = kbnn.models.build("tiny", method="bireal", input_shape=(8, 8, 1), classes=4)
    with pytest.raises(UntrustedModelError, match="keeps array 'a' in another file"):
        kbnn.weights.load(model, tmp_path / "external.h5")


def test_the_limit_of_a_size_can_be_given(tmp_path: Path):
    write_zip(tmp_path / "model.keras", functional())
    with pytest.raises(KbnnError, match=r"is too large: received .* the limit is 1,000"):
        load_model(tmp_path / "model.keras", max_bytes=1000)


@pytest.mark.parametrize("case", ["a compressed configuration", "compressed metadata"])
def test_a_compressed_archive_does_not_fill_the_memory(case: str, tmp_path: Path):
    HOSTILE[case][0](tmp_path / "bomb.keras")
    tracemalloc.start()
    with pytest.raises(KbnnError):
        load_model(tmp_path / "bomb.keras")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("name", ["keras_metadata.pb", "saved_model.pb"])
def test_sizes_of_saved_models_are_limited(name: str, tmp_path: Path):
    for each in ("keras_metadata.pb", "saved_model.pb"):
        (tmp_path / each).touch()
    os.truncate(tmp_path / name, 600_000_000)
    with pytest.raises(KbnnError, match=f"{name}' is too large: received 600,000,000 bytes"):
        load_model(tmp_path)


def test_layers_in_the_wrong_order_take_no_quadratic_time(tmp_path: Path):
    check_config(tmp_path, functional(*chain(5_000)))
    check_config(tmp_path, functional(*reversed(chain(100))))


def test_shared_layers_and_models_load(tmp_path: Path):
    images = tf.keras.Input((4,))
    dense, inner = tf.keras.layers.Dense(4), tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(4)])
    outputs = dense(inner(dense(inner(dense(images)))))
    model = tf.keras.Model(images, tf.keras.layers.Add()([outputs, images, inner(images)]))
    model.save(tmp_path / "shared.keras")
    np.testing.assert_allclose(
        load_model(tmp_path / "shared.keras")(np.ones((1, 4))), model(np.ones((1, 4))), rtol=1e-6
    )


def test_files_that_are_not_models(tmp_path: Path):
    (tmp_path / "model.pkl").write_bytes(b"")
    for path in (tmp_path / "model.pkl", tmp_path / "absent.keras", tmp_path):
        with pytest.raises(UsageError, match="cannot load a model"):
            load_model(path)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_suffixes_in_upper_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cameras, Windows and old tools write MODEL.KERAS, WEIGHTS.H5 and NET.TFLITE."""
    from kbnn import examples, weights
    from kbnn.training import Recipe, catalog

    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(2, name="kernel")])
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"model.{suffix}")
        path = (tmp_path / f"model.{suffix}").rename(tmp_path / f"MODEL.{suffix.upper()}")
        for loaded in (load_model(path), weights.load_source(path)):
            np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
    packed = weights.pack(model, tmp_path)
    packed = packed.rename(packed.with_suffix(".NPZ"))
    weights.load(model, packed)
    file = tmp_path / "DIGITS.TFLITE"
    file.write_bytes(examples.get("tiny-bireal-digits").path.read_bytes())
    assert kbnn.Classifier(file).input_shape == (8, 8, 1)
    with pytest.raises(UsageError, match="holds signs instead of weights"):
        weights.load_source(file)
    recipe = Recipe.of("tiny", "bireal", "digits")
    recipe.write(tmp_path / "RECIPE.TOML")
    monkeypatch.chdir(tmp_path)
    assert catalog.find("RECIPE.TOML") == recipe
