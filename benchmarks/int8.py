"""What int8 costs trained networks: top-1 of the float file, of int8 weights, and of all int8, on every test image.

.venv/bin/python benchmarks/int8.py RUN...
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import record

from kbnn.converters import convert
from kbnn.converters.tflite import flatbuffer, interpreter
from kbnn.precision import in_float32
from kbnn.training.run import Run

_CALIBRATION_IMAGES = 256
_VERIFICATION_IMAGES = 256


def measure(run: Run) -> dict[str, object]:
    """A row: the top-1 of Keras and of three files, each file's size, and how often it agrees with Keras."""
    model, data = in_float32(run.model()), run.dataset()
    images, labels = data.inputs(data.test), data.test.labels
    calibration = data.inputs(data.train, _CALIBRATION_IMAGES)
    forms = {"float": {}, "int8_weights": {"weights": "int8"}, "int8": {"calibration": calibration}}
    keras = model.predict(images, verbose=0).argmax(-1)
    row: dict[str, object] = {
        "network": run.recipe.model.name,
        "method": run.recipe.model.method,
        "dataset": data.name,
        "test_images": len(images),
        "keras_top1": f"{np.mean(keras == labels):.4f}",
    }
    for form, options in forms.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            convert(model, path, images[:_VERIFICATION_IMAGES], **options)
            predicted = interpreter.run(flatbuffer.read(path).data, [images])[0].argmax(-1)
            row |= {
                f"{form}_top1": f"{np.mean(predicted == labels):.4f}",
                f"{form}_agreement": f"{np.mean(predicted == keras):.4f}",
                f"{form}_bytes": path.stat().st_size,
            }
    return row


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
