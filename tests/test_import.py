"""Importing kbnn: it selects Keras 2, and loads no TensorFlow."""

import os
import subprocess
import sys

import pytest


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **environment}, timeout=120
    )


def test_import_loads_no_tensorflow():
    done = run(
        "import sys, kbnn; print([m for m in ('tensorflow', 'tf_keras', 'larq', 'matplotlib') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_help_loads_no_tensorflow():
    done = run(
        "import sys, kbnn.cli\ntry: kbnn.cli.main(['--help'])\nexcept SystemExit: print('tensorflow' in sys.modules)"
    )
    assert done.stdout.strip().endswith("False"), done.stderr


def test_inspecting_a_file_loads_no_tensorflow():
    done = run(
        "import sys, kbnn, kbnn.cli.benchmark, kbnn.cli.inspect, kbnn.converters.tflite.audit_page; "
        "audit = kbnn.converters.inspect(kbnn.examples.get('tiny-bireal-digits').path); "
        "print(bool(audit.binary_convolutions), 'tensorflow' in sys.modules)"
    )
    assert done.stdout.strip() == "True False", done.stderr


@pytest.mark.parametrize(
    "imports",
    ["import kbnn, tensorflow as tf", "import tensorflow as tf, kbnn", "import tensorflow as tf, keras, kbnn"],
    ids=["before TensorFlow", "after TensorFlow", "after Keras 3 itself"],
)
@pytest.mark.slow
def test_selects_keras_2_and_registers_the_layers(imports: str):
    show = "print(tf.keras.Model.__module__[:8], 'kbnn>BinaryConv2D' in tf.keras.utils.get_custom_objects())"
    done = run(f"{imports}; {show}")
    assert done.stdout.strip() == "tf_keras True", done.stderr


@pytest.mark.slow
def test_after_larq():
    done = run("import larq, kbnn; print(kbnn.layers.BinaryConv2D.__name__)", TF_USE_LEGACY_KERAS="1")
    assert done.stdout.strip() == "BinaryConv2D", done.stderr


@pytest.mark.slow
def test_names_the_variable_when_keras_3_is_in_use():
    done = run("import tensorflow as tf; tf.keras.layers; import kbnn")
    assert done.returncode == 1
    assert "ImportError" in done.stderr.splitlines()[-1]
    assert "set TF_USE_LEGACY_KERAS=1" in done.stderr.splitlines()[-1]


def test_names_the_variable_when_it_disables_keras_2():
    done = run("import kbnn", TF_USE_LEGACY_KERAS="0")
    assert "received TF_USE_LEGACY_KERAS='0', set TF_USE_LEGACY_KERAS=1" in done.stderr.splitlines()[-1]


def test_unknown_attribute():
    import kbnn

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kbnn.nothing
    assert "models" in dir(kbnn)
