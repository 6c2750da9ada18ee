"""`kbnn convert`, `kbnn inspect` and `kbnn verify` as processes: results, exit statuses and one-line errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kbnn

KBNN = Path(sys.executable).with_name("kbnn")


def run(*arguments):
    return subprocess.run([KBNN, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """An untrained network as a .keras file."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.keras"
    kbnn.models.build("tiny", method="bireal").save(path)
    return path


@pytest.fixture(scope="module")
def converted(tiny):
    path = tiny.with_suffix(".tflite")
    done = run("convert", tiny, "-o", path, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("verifying on random images; the file will not contain labels (")
    assert done.stderr.count("\n") == 1
    return path, json.loads(done.stdout)


@pytest.mark.slow
def test_convert_inspect_verify(tiny, converted):
    path, artifact = converted
    assert artifact["size_bytes"] == path.stat().st_size
    inspected = run("inspect", path, "--json")
    assert inspected.returncode == 0
    assert len(json.loads(inspected.stdout)["binary_convolutions"]) == 4
    verified = run("verify", tiny, path, "--dataset", "digits", "--images", "40", "--json")
    assert (verified.returncode, verified.stderr) == (0, "")
    parity = json.loads(verified.stdout)
    assert parity["passed"]
    assert parity["samples"] == 40


@pytest.mark.slow
def test_a_file_that_differs_is_status_1(tiny, converted, tmp_path):
    from kbnn.converters.tflite import flatbuffer

    model = flatbuffer.tree(converted[0].read_bytes())
    operator = next(o for o in flatbuffer.parse(converted[0].read_bytes()).operators if o.name == "LceBconv2d")
    buffer = model.buffers[model.subgraphs[0].tensors[operator.inputs[1].index].buffer]
    buffer.data = np.array(buffer.data) ^ np.eye(1, len(buffer.data), dtype=np.uint8)[0]
    path = tmp_path / "flipped.tflite"
    path.write_bytes(flatbuffer.pack(model))
    done = run("verify", tiny, path, "--dataset", "digits", "--images", "32")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "layer 'block1_conv1': 1 of 9216 kernel bits differ from Keras's" in done.stderr


@pytest.mark.slow
def test_a_model_without_a_binary_layer(tmp_path):
    path = tmp_path / "float.keras"
    kbnn.models.build("tiny", method="float").save(path)
    done = run("convert", path, "-o", tmp_path / "model.tflite")
    assert done.returncode == 1
    assert "error: model 'tiny' has no 1-bit layer" in done.stderr
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (None, 2, "no such file"),
        (b"", 1, "it is empty"),
        (b"hello, world", 1, "it is not a TFLite file"),
        (b"\x89HDF\r\n\x1a\n", 1, "it is a Keras model; convert it with kbnn convert"),
        (b"\x08\x00\x00\x00TFL3" + b"\xff" * 40, 1, "truncated or damaged"),
    ],
    ids=["missing", "empty", "text", "keras", "damaged"],
)
@pytest.mark.parametrize("arguments", [("inspect",), ("verify", "any.keras")], ids=["inspect", "verify"])
def test_bad_files_are_one_line(arguments, content, status, message, tmp_path):
    path = tmp_path / "bad.tflite"
    if content is not None:
        path.write_bytes(content)
    done = run(*arguments, path)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.slow
def test_a_plain_tflite_file_is_status_1(tmp_path):
    path = tmp_path / "float.tflite"
    kbnn.converters.export_float(kbnn.models.build("tiny", method="float"), path)
    done = run("inspect", path)
    assert done.returncode == 1
    assert "binary share of MACs: 0.00%" in done.stdout
    assert done.stderr == f"error: '{path}' has no binary convolution: it is a plain TensorFlow Lite file\n"
