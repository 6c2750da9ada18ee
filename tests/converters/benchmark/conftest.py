"""The same small network as three files: bitpacked, float32 and int8."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from benchmark_tools import compile_probe

import kbnn  # noqa: F401  (selects tf.keras 2 before TensorFlow is imported)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    contents = {"binary": _binary(), "float32": _plain(), "int8": _int8()}
    for name, content in contents.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: folder / f"{name}.tflite" for name in contents}


def _network(binary: bool):
    import larq
    import tensorflow as tf

    layers = tf.keras.layers
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(32, 3, padding="same")(inputs)
    if binary:
        x = larq.layers.QuantConv2D(
            32, 3, padding="same", pad_values=1.0, input_quantizer="ste_sign", kernel_quantizer="ste_sign"
        )(x)
    else:
        x = layers.Conv2D(32, 3, padding="same")(x)
    return tf.keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def _binary() -> bytes:
    import larq_compute_engine

    return larq_compute_engine.convert_keras_model(_network(binary=True))


def _plain() -> bytes:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_keras_model(_network(binary=False)).convert()


def _int8() -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(_network(binary=False))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    noise = np.random.default_rng(0)
    converter.representative_dataset = lambda: (
        [noise.standard_normal((1, 8, 8, 3)).astype(np.float32)] for _ in range(4)
    )
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # The statistics come from the representative data set, which the converter's front end ignores.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs")
        return converter.convert()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that the stand-ins for the tool accept as a model, at a path that needs quoting in a shell."""
    path = tmp_path_factory.mktemp("model") / "it's $(touch touched); a model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(256)) * 16)
    return path


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the tool as a program for this machine."""
    return compile_probe(tmp_path_factory.mktemp("probe"))
