"""Measures the accuracy loss of 8 bits in trained networks: top-1 and agreement with Keras of four files.

The files are float32; int8 weights (16 bits where signs depend on them); all weights in 8 bits; and int8 throughout.
All test images are used. `noise_agreement` is how often Keras agrees with itself if each pixel changes by up to half a
grey level, because a binary network amplifies small differences.

.venv/bin/python benchmarks/int8.py RUN...
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import record
import tensorflow as tf

from kbnn.converters.forms import BINARY, INT8_WEIGHTS, Bitpacked
from kbnn.converters.graph.trace import Reference
from kbnn.converters.passes import Options, deploy
from kbnn.converters.tflite import interpreter
from kbnn.converters.tflite.converter import lower
from kbnn.converters.tflite.int8_weights import rounded, stored_as_int8
from kbnn.datasets import Dataset
from kbnn.precision import in_float32
from kbnn.training.run import Run

_VERIFICATION_IMAGES = 64


def measure(run: Run) -> dict[str, object]:
    """A row of results: top-1 accuracy of Keras and each file, and the file's size and agreement with Keras."""
    model, data = in_float32(run.model()), run.dataset()
    images, labels = data.inputs(data.test), data.test.labels
    keras = model.predict(images, verbose=0).argmax(-1)
    row: dict[str, object] = {
        "network": run.recipe.model.name,
        "method": run.recipe.model.method,
        "dataset": data.name,
        "epochs": len(run.history()),
        "test_images": len(images),
        "keras_top1": f"{np.mean(keras == labels):.4f}",
        "noise_agreement": f"{np.mean(model.predict(_noisy(images, data), verbose=0).argmax(-1) == keras):.4f}",
    }
    for form, file in _files(model, data, images[:_VERIFICATION_IMAGES]).items():
        predicted = interpreter.run(file, [images])[0].argmax(-1)
        row |= {
            f"{form}_top1": f"{np.mean(predicted == labels):.4f}",
            f"{form}_agreement": f"{np.mean(predicted == keras):.4f}",
            f"{form}_bytes": len(file),
        }
    return row


def _noisy(images: np.ndarray, data: Dataset) -> np.ndarray:
    """The images with noise of up to half a grey level per pixel."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, images.shape)
    return (images + noise / np.asarray(data.normalization.std)).astype(np.float32)


def _files(model: tf.keras.Model, data: Dataset, images: np.ndarray) -> dict[str, bytes]:
    """The content of each file, by name."""
    calibration = data.calibration()
    forms = {
        "float": BINARY,
        "int8_weights": INT8_WEIGHTS,
        "int8": Bitpacked("binary, faster int8", is_calibrated=True),
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, form in forms.items():
            path = Path(folder) / f"{name}.tflite"
            form.write(model, path, images, calibration)
            found[name] = path.read_bytes()
    reference = rounded(Reference(model))
    file = lower(deploy(reference, Options(weights="int8")), Options(weights="int8").to_json())
    return {**found, "all_weights_int8": stored_as_int8(file).data}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of trained runs")
    for folder in arguments.parse_args().runs:
        run = Run.open(folder)
        row = measure(run)
        print(row, flush=True)
        record.append("int8", [row], seed=run.recipe.seed)


if __name__ == "__main__":
    main()
